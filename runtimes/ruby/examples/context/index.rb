# Shows what a function knows about its call and its surroundings, and how it logs.
def handler(event:, context:)
  puts "a printed line"
  warn "a line on standard error"
  {
    requestId: context.aws_request_id,
    functionName: context.function_name,
    functionVersion: context.function_version,
    functionBrn: context.function_brn,
    memoryLimitInMB: context.memory_limit_in_mb,
    remainingTimeMs: context.get_remaining_time_in_millis,
    clientContext: context.client_context,
    greeting: ENV.fetch("GREETING", "set the variable GREETING of this function")
  }
end
