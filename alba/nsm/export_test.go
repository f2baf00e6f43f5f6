package nsm

import "runtime"

// AwaitWaiting waits until n puts of a namespace wait for a call.
func AwaitWaiting(c *Client, ns uint64, n int) {
	for {
		c.puts.mu.Lock()
		done := len(c.puts.queues[ns]) == n
		c.puts.mu.Unlock()
		if done {
			return
		}
		runtime.Gosched()
	}
}
