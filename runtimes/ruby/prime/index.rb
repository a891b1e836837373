# frozen_string_literal: true

# A handler that only priming loads (bootstrap.rb).
def prime_handler(event, _context)
  { name: event["name"], list: [1, 2.5, nil, true] }
end
