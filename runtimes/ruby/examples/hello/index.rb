# The smallest function: a string is sent as it is, without quotes.
def handler(event:, context:)
  "Hello world!"
end
