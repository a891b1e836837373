def handler(event:, context:)
  { hour: Time.at(0).hour, greeting: ENV["GREETING"] }
end
