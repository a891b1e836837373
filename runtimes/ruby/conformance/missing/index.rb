def other(event:, context:)
  nil
end
