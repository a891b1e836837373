def explode():
    raise ValueError("boom")


def handler(event, context):
    explode()
