# Child process: call one function of every version on every input; a line of JSON a version.
require "json"
require "set"
require "stringio"

TOO_LONG = "too long"

class TooLong < Exception
end

def processor_time
  Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)
end

# Main thread: what a block gives, unless it takes longer than that much of the processor.
class Limiter
  def initialize
    @until = nil
    main = Thread.current
    Thread.new do
      loop do
        sleep 0.01
        over = @until && processor_time > @until
        next unless over
        @until = processor_time + 0.1
        main.raise(TooLong)
      end
    end
  end

  def limit(seconds)
    @until = processor_time + seconds
    yield
  ensure
    @until = nil
  end
end

# Addresses and modules tell versions apart that behave alike.
def shown(value)
  value = value.first(50) if value.is_a?(Enumerator)
  text = value.inspect.gsub(/#<Module:0x\h+>(::)?/, "").gsub(/0x\h+/, "")
  text = text.gsub(/#<Proc:[^>]*>/, "#<Proc>")
  text[0, 2000].scrub
end

job = JSON.parse(File.read("job.json"))
answer = $stdout.dup
$stdin = StringIO.new
$stderr = StringIO.new
inputs = job["inputs"]
seconds = job["milliseconds"] / 1000.0
patience = job["patience"]
limiter = Limiter.new
# Inputs on which the first source takes too long tell nothing of the others.
untold = Set.new
job["sources"].each_with_index do |source, place|
  late = 0
  receiver = Object.new
  begin
    $stdout = StringIO.new
    limiter.limit(4 * seconds) do
      versions = Module.new
      versions.module_eval(source, "sample")
      receiver.extend(versions)
      receiver.method(job["function"])
    end
  rescue TooLong
    late = patience
  rescue Exception
    next
  end
  values = inputs.each_with_index.map do |text, at|
    next TOO_LONG if untold.include?(at) || late >= patience
    arguments = JSON.parse(text)
    $stdout = StringIO.new
    begin
      value = limiter.limit(seconds) { receiver.send(job["function"], *arguments) }
      "#{shown(value)} | #{shown(arguments)} | #{$stdout.string[0, 500].scrub}"
    rescue TooLong
      late += 1
      TOO_LONG
    rescue Exception => error
      "#{error.class.name} | #{$stdout.string[0, 500].scrub}"
    end
  end
  values.each_with_index { |value, at| untold << at if place.zero? && value == TOO_LONG }
  answer.puts(JSON.generate([place, values]))
  answer.flush
end
