import logging

logger = logging.getLogger()
logger.setLevel(logging.INFO)


def handler(event, context):
    logger.info("seen %s", event["tag"])
    logger.debug("not seen")
    return "ok"
