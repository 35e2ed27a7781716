-- Prints the results of a run of wrk as JSON. `sent` counts all requests, including those interrupted at the end.
-- `sent` must be global, because thread:get() reads only global variables.
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(_)
  sent = -1 -- wrk calls request() once without sending it
  prepared = wrk.format()
end

function request()
  sent = sent + 1
  return prepared
end

function done(summary, latency, _)
  local sent_by_all = 0
  for _, thread in ipairs(threads) do
    sent_by_all = sent_by_all + thread:get("sent")
  end
  local errors = summary.errors
  local failures = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    '\nJSON {"completed": %d, "sent": %d, "seconds": %.6f, "failures": %d, "p50_ms": %.3f, "p99_ms": %.3f}\n',
    summary.requests, sent_by_all, summary.duration / 1e6, failures,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
