-- Prints the results of a run of wrk as JSON. `sent` counts all requests, including those interrupted at the end.
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
  local all = 0
  for _, thread in ipairs(threads) do
    all = all + thread:get("sent")
  end
  local e = summary.errors
  io.write(string.format(
    '\nJSON {"completed": %d, "sent": %d, "seconds": %.6f, "failures": %d, "p50_ms": %.3f, "p99_ms": %.3f}\n',
    summary.requests, all, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
