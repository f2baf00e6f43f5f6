package nbd_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdtest"
)

// TestServersOwnTimeIsNoStall: a client that has sent all of a request is not
// stalled, however long the server takes before it looks into the socket again.
func TestServersOwnTimeIsNoStall(t *testing.T) {
	const stall, length = time.Second, 2 << 20
	for _, test := range []struct {
		name   string
		at     nbdtest.Op
		limits nbd.Limits
		before nbd.Command // what is waited for; 0: the WRITE itself
	}{
		{"request", nbdtest.OpFlush, nbd.Limits{Requests: 1}, nbd.CmdFlush},
		{"device", nbdtest.OpTryWrite, nbd.Limits{Rate: 2 * length}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			gate := nbdtest.NewGate()
			dev := nbdtest.NewMemory(length)
			dev.Hook = func(ctx context.Context, op nbdtest.Op, _, _ int64) error {
				if op == test.at {
					return gate.Wait(ctx)
				}
				return nil
			}
			test.limits.StallTimeout = stall
			s := serve(t, dev, test.limits)
			r := s.transmit(simple)
			replies := 1
			if test.before != 0 {
				r.request(test.before, 0, 0, 0)
				gate.Arrived(1)
				replies++
			}
			write := r.frame(nbd.CmdWrite, 0, 0, length, make([]byte, length)...)
			r.send(write[:10]...)
			// The tick that finds a request in part makes its buffer small.
			for s.Stats().BufferBytes == 0 || s.Stats().BufferBytes >= 256<<10 {
				runtime.Gosched()
			}
			sent := make(chan error, 1)
			go func() {
				_, err := r.Write(write[10:])
				sent <- err
			}()
			if test.before == 0 {
				gate.Arrived(1)
			}
			time.AfterFunc(2*stall, gate.Open)
			for range replies {
				if errno := r.simple(); errno != nbd.OK {
					t.Fatal(errno)
				}
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		})
	}
}
