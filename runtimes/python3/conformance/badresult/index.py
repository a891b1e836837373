def handler(event, context):
    return {"a set": {1, 2}}
