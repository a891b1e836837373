def handler(event:, context:)
  puts "out #{event['tag']}"
  warn "err #{event['tag']}"
  print "unfinished #{event['tag']}"
  "logged"
end
