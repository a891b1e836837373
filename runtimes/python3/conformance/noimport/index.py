import not_to_be_found_anywhere


def handler(event, context):
    return not_to_be_found_anywhere
