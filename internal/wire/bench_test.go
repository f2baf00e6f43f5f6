package wire

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
)

// BenchmarkEcho is a body there and back over TCP. scripts/wirebench has it beside others.
func BenchmarkEcho(b *testing.B) {
	for _, secure := range []bool{false, true} {
		for _, size := range []int{64, 4096, 1 << 20} {
			for _, flight := range []int{1, 64} {
				b.Run(fmt.Sprintf("tls=%v/%d/%d", secure, size, flight), func(b *testing.B) {
					l, err := net.Listen("tcp", "127.0.0.1:0")
					if err != nil {
						b.Fatal(err)
					}
					o, so := options(l), ServerOptions{}
					if secure {
						so.TLS, o.TLS = testTLS(b)
					}
					serve(b, l, so, func(_ context.Context, r *Incoming) Answer { return Answer{Body: r.Take()} })
					c := dial(b, o)
					b.SetBytes(int64(size))
					b.ReportAllocs()
					var all sync.WaitGroup
					next := make(chan struct{}, flight)
					for range flight {
						all.Go(func() {
							body := make([]byte, size)
							for range next {
								r, err := c.Call(b.Context(), Request{Body: Wrap(nil, body)})
								if err != nil {
									b.Error(err)
									return
								}
								r.Release()
							}
						})
					}
					for b.Loop() {
						next <- struct{}{}
					}
					close(next)
					all.Wait()
				})
			}
		}
	}
}
