# frozen_string_literal: true

# The ruby runtime: one call at a time (its hello has no "concurrent"), in one file. docs/protocol.md says what it must do.
require "json"
require "time"

module Faaster
  LAYER_DIR = "/opt/ruby/lib"
  TASK_DIR = ENV.delete("FAASTER_TASK_DIR") || "/var/task"
  RUNTIME_DIR = ENV.delete("FAASTER_RUNTIME_DIR") || "/var/runtime"
  CHANNEL_FD = 3
  MAGIC = "FAS\x01".b.freeze
  HEADER_BYTES = 64
  HEADER = "a4S<S<Q<Q<L<L<L<" # magic, type, flags, invocation, deadline, meta length, body length, credit
  FRAME = "a4S<S<Q<x8L<L<x32"
  MORE = 1
  HELLO, LOAD, READY, INVOKE, REQUEST_PART, RESPONSE, WINDOW, CANCEL, ERROR, _LOG, SHUTDOWN, PING, PONG = (1..13).to_a
  # Bounds of the protocol (docs/protocol.md sections 2 and 5).
  META_BYTES_MAX = 65_536
  EVENT_FRAME_BYTES_MAX = 262_144
  RESULT_FRAME_BYTES_MAX = 262_144
  RESULT_PART_BYTES_MAX = 65_536
  RESULT_BYTES_MAX = 6_291_556
  RESULT_CREDIT_BYTES = 262_144
  READ_BYTES = 65_536
  EXIT_LOAD_FAILED = 1
  EXIT_GARBAGE = 70

  # The engine has no more use for this process.
  class Closed < StandardError; end
  # The engine sent bytes that are no frame.
  class Garbage < StandardError; end

  # The function cannot be loaded; `type` is one of AWS's names for that.
  class LoadError < StandardError
    attr_reader :type, :stack

    def initialize(type, message, stack = [])
      super(message)
      @type = type
      @stack = stack
    end
  end

  Frame = Struct.new(:type, :flags, :invocation, :deadline_ns, :credit, :meta, :body) do
    def more?
      flags & MORE != 0
    end
  end

  # Whole frames in, whole frames out.
  class Channel
    def initialize(descriptor)
      @io = IO.for_fd(descriptor, mode: "r+b")
      @io.sync = true
      @input = "".b
    end

    def write(type, invocation, body = "", meta: "", flags: 0)
      @io.write([MAGIC, type, flags, invocation, meta.bytesize, body.bytesize].pack(FRAME) + meta.b + body.b)
    rescue Errno::EPIPE, Errno::ECONNRESET
      raise Closed
    end

    def read
      until (frame = take)
        begin
          @input << @io.readpartial(READ_BYTES)
        rescue EOFError, Errno::ECONNRESET
          raise Closed
        end
      end
      raise Closed if frame.type == SHUTDOWN
      return frame if frame.type != PING

      write(PONG, 0)
      read
    end

    private

    def take
      return nil if @input.bytesize < HEADER_BYTES

      magic, type, flags, invocation, deadline, meta_bytes, body_bytes, credit = @input.unpack(HEADER)
      if magic != MAGIC || meta_bytes > META_BYTES_MAX || body_bytes > EVENT_FRAME_BYTES_MAX
        raise Garbage, "frame begins with #{@input[0, 8].unpack1('H*')}"
      end

      body = HEADER_BYTES + meta_bytes
      return nil if @input.bytesize < body + body_bytes

      frame = Frame.new(type, flags, invocation, deadline, credit, @input[HEADER_BYTES, meta_bytes], @input[body, body_bytes])
      @input = @input.byteslice(body + body_bytes, @input.bytesize)
      frame
    end
  end

  # What a handler gets beside the event.
  class Context
    class << self
      attr_accessor :about
    end

    def initialize(deadline_ns, meta)
      @deadline_ns = deadline_ns
      @meta = meta
    end

    def aws_request_id = info["requestId"]
    alias request_id aws_request_id
    def client_context = info["clientContext"]
    def function_name = about["functionName"]
    def function_version = about["functionVersion"]
    def function_brn = about["brn"]
    alias invoked_function_arn function_brn
    # A call says it only where it was edited since the load.
    def memory_limit_in_mb = info["memoryMB"] || about["memoryMB"]
    def log_group_name = "/faaster/#{function_name}"
    def log_stream_name = function_version
    def identity = nil

    # Whole milliseconds until the engine answers for the handler.
    def get_remaining_time_in_millis
      return about["timeoutMs"] if @deadline_ns.zero?

      [(@deadline_ns - Process.clock_gettime(Process::CLOCK_MONOTONIC, :nanosecond)) / 1_000_000, 0].max
    end

    private

    def about = self.class.about
    def info = (@info ||= @meta.empty? ? {} : JSON.parse(@meta))
  end

  # Error objects of docs/protocol.md section 8.
  module Failure
    module_function

    def describe(error)
      return encode(error.message, error.type, error.stack) if error.is_a?(LoadError)

      encode(error.message, error.class.name || "Error", user_stack(error))
    end

    # Without our own lines and the interpreter's; below our first line there is nothing of the user's.
    def user_stack(error)
      lines = error.backtrace || []
      lines.take_while { |line| !line.start_with?(__FILE__) }.reject { |line| line.start_with?("<internal:") }
    end

    def encode(message, type, stack)
      text = message.to_s.dup.force_encoding(Encoding::UTF_8).scrub
      JSON.generate({ errorMessage: text, errorType: type, stackTrace: stack.map(&:scrub) })
    end
  end

  # Finds a function's handler.
  module Loader
    module_function

    # `folder/file.function` or `folder/file.Module::Class.function`; returns something to call with (event, context).
    def find(spec, task_dir)
      file, *owner, name = File.basename(spec).split(".", -1)
      if name.nil? || file.empty? || name.empty? || owner.length > 1
        raise LoadError.new("Runtime.MalformedHandlerName", "handler '#{spec}' is not of the form file.function")
      end

      require_file(spec, File.join(File.dirname(spec), file), task_dir)
      receiver = receiver_of(spec, owner.first)
      unless receiver.respond_to?(name, true)
        raise LoadError.new("Runtime.HandlerNotFound", "handler '#{spec}' not found: '#{file}.rb' has no method '#{name}'")
      end
      caller_of(receiver.method(name))
    end

    def require_file(spec, path, task_dir)
      place = File.expand_path(path, task_dir)
      unless File.file?("#{place}.rb")
        raise LoadError.new("Runtime.ImportModuleError",
                            "handler '#{spec}' not found: there is no file '#{path.delete_prefix('./')}.rb' in #{task_dir}")
      end
      require place
    rescue ::LoadError => e
      raise LoadError.new("Runtime.ImportModuleError", "cannot load '#{path}.rb': #{e.message}", Failure.user_stack(e))
    rescue SyntaxError => e
      raise LoadError.new("Runtime.UserCodeSyntaxError", "syntax error in '#{path}.rb': #{e.message}")
    end

    def receiver_of(spec, owner)
      owner ? Object.const_get(owner) : TOPLEVEL_BINDING.receiver
    rescue NameError
      raise LoadError.new("Runtime.HandlerNotFound", "handler '#{spec}' not found: there is no '#{owner}'")
    end

    # AWS's Ruby handlers take keywords; plain ones take what they have parameters for.
    def caller_of(method)
      kinds = method.parameters.map(&:first)
      return ->(event, context) { method.call(event: event, context: context) } if kinds.include?(:keyreq) || kinds.include?(:key)
      return ->(event, context) { method.call(event, context) } if method.arity >= 2 || method.arity.negative?

      method.arity == 1 ? ->(event, _context) { method.call(event) } : ->(_event, _context) { method.call }
    end
  end

  # One function, one call at a time.
  class Server
    def initialize(channel)
      @channel = channel
    end

    def load
      frame = @channel.read
      raise Garbage, "expected load, got type #{frame.type}" if frame.type != LOAD

      about = JSON.parse(frame.meta)
      Context.about = about
      apply_environment(about)
      Dir.chdir(TASK_DIR)
      $LOAD_PATH.unshift(TASK_DIR, File.join(TASK_DIR, "vendor"), File.join(TASK_DIR, "lib"), LAYER_DIR)
      @handler = Loader.find(about["handler"].to_s, TASK_DIR)
      srand
    end

    def serve
      loop do
        frame = @channel.read
        case frame.type
        when INVOKE then answer(frame, whole_event(frame))
        when WINDOW, CANCEL then nil # late: its invocation has been answered
        else raise Garbage, "unexpected type #{frame.type}"
        end
      end
    end

    private

    def apply_environment(about)
      ENV.update("LAMBDA_TASK_ROOT" => TASK_DIR, "_HANDLER" => about["handler"].to_s,
                 "AWS_LAMBDA_FUNCTION_NAME" => about["functionName"].to_s,
                 "AWS_LAMBDA_FUNCTION_VERSION" => about["functionVersion"].to_s,
                 "AWS_LAMBDA_FUNCTION_MEMORY_SIZE" => about["memoryMB"].to_s)
      ENV.update(about["env"] || {})
    end

    def whole_event(frame)
      event = frame.body
      while frame.more?
        frame = @channel.read
        raise Garbage, "expected request-part, got type #{frame.type}" if frame.type != REQUEST_PART

        event << frame.body
      end
      event.force_encoding(Encoding::UTF_8)
    end

    def answer(frame, event_text)
      begin
        event = parse(event_text)
        context = Context.new(frame.deadline_ns, frame.meta)
        result = encode(@handler.call(event, context))
      rescue SystemExit, Closed, Garbage
        raise
      rescue Exception => e # rubocop:disable Lint/RescueException -- whatever a handler raises is its answer
        failure = Failure.describe(e)
      end
      # What the handler has printed comes before its answer.
      $stdout.flush
      $stderr.flush
      failure ? @channel.write(ERROR, frame.invocation, failure) : send_result(frame.invocation, result)
    end

    def parse(text)
      raise JSON::ParserError, "invalid UTF-8" unless text.valid_encoding?

      JSON.parse(text)
    rescue JSON::ParserError => e
      raise LoadError.new("Runtime.UnmarshalError", "the event is not valid JSON: #{e.message}")
    end

    def encode(result)
      body = result.is_a?(String) ? result : JSON.generate(result)
      return body if body.bytesize <= RESULT_BYTES_MAX

      raise LoadError.new("Function.ResponseSizeTooLarge",
                          "Response payload size exceeded maximum allowed payload size (#{RESULT_BYTES_MAX} bytes).")
    rescue JSON::GeneratorError, JSON::NestingError, NoMethodError, TypeError => e
      raise LoadError.new("Runtime.MarshalError", "the result cannot be sent: #{e.message}")
    end

    def send_result(invocation, body)
      return @channel.write(RESPONSE, invocation, body) if body.bytesize <= RESULT_FRAME_BYTES_MAX

      credit = RESULT_CREDIT_BYTES
      at = 0
      while at < body.bytesize
        credit += wait_for_credit(invocation) while credit.zero?
        count = [RESULT_PART_BYTES_MAX, credit, body.bytesize - at].min
        last = at + count == body.bytesize
        @channel.write(RESPONSE, invocation, body.byteslice(at, count), flags: last ? 0 : MORE)
        at += count
        credit -= count
      end
    end

    def wait_for_credit(invocation)
      loop do
        frame = @channel.read
        return frame.credit if frame.type == WINDOW && frame.invocation == invocation
        raise Garbage, "unexpected type #{frame.type}" if frame.type != WINDOW && frame.type != CANCEL
      end
    end
  end

  module_function

  # Runs the loader and the JSON library once, so that the first call does not pay for it.
  def prime
    handler = Loader.find("index.prime_handler", File.join(RUNTIME_DIR, "prime"))
    10.times { JSON.generate(handler.call(JSON.parse('{"name":"prime"}'), nil)) }
    Object.send(:remove_method, :prime_handler)
  end

  def main
    prime
    $stdout.sync = $stderr.sync = true # a kill at the deadline loses no line
    channel = Channel.new(CHANNEL_FD)
    channel.write(HELLO, 0, meta: JSON.generate({ protocol: 1, runtime: "ruby#{RUBY_VERSION}", features: [] }))
    server = Server.new(channel)
    load_or_say_why(server, channel)
    channel.write(READY, 0, meta: JSON.generate({ features: ["ping"] }))
    server.serve
  rescue Closed
    exit!(0)
  rescue Garbage => e
    warn "faaster runtime: protocol error: #{e.message}"
    exit!(EXIT_GARBAGE)
  end

  def load_or_say_why(server, channel)
    server.load
  rescue Closed, Garbage, SystemExit
    raise
  rescue Exception => e # rubocop:disable Lint/RescueException -- whatever the user's file raises is the answer
    channel.write(ERROR, 0, Failure.describe(e))
    exit!(EXIT_LOAD_FAILED)
  end
end

Faaster.main
