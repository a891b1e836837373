# What results and contexts look like, chosen by the event's "kind"; the same in every language.
def handler(event:, context:)
  if event["kind"] == "context"
    return {
      requestId: context.aws_request_id, name: context.function_name, version: context.function_version,
      memory: context.memory_limit_in_mb.to_i, brn: context.invoked_function_arn,
      remaining: context.get_remaining_time_in_millis, client: context.client_context
    }
  end
  {
    "text" => "plain text",
    "quoted" => "with \"quotes\"\n",
    "unicode" => "héllo ☃ 𝄞 <b>&",
    "object" => { a: [1, 2, { b: nil }], s: "<x>&☃" },
    "none" => nil,
    "number" => 42,
    "true" => true,
    "empty" => "",
    "list" => [],
    "echo" => event,
    "env" => [ENV["GREETING"], ENV["EMPTY"], nil],
    "cwd" => Dir.pwd,
    "path" => ENV["PATH"]
  }.fetch(event["kind"])
end
