def handler(event, _context)
  sleep event["seconds"]
end
