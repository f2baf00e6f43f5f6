package wire

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
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

// BenchmarkTLSOverPlain is 4 KiB in one direction and there and back, one at a time and answered in
// line, plain and with TLS by turns in one run. Figures are medians of the turns, microseconds of CPU
// of both ends.
func BenchmarkTLSOverPlain(b *testing.B) {
	body := make([]byte, 4096)
	handler := HandlerFunc(func(_ context.Context, r *Incoming) Answer {
		if r.Op == 1 {
			return Answer{Body: r.Take()}
		}
		return Answer{}
	})
	type way struct {
		name string
		once func()
	}
	var ways []way
	for _, secure := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		o, so, mode := options(l), ServerOptions{}, "plain"
		if secure {
			so.TLS, o.TLS = testTLS(b)
			mode = "tls"
		}
		so.Services = map[string]*Service{"ovs-kv": {Handler: handler, Inline: func(uint16) bool { return true }}}
		serve(b, l, so, nil)
		c := dial(b, o)
		for op, name := range []string{"oneway", "echo"} {
			ways = append(ways, way{name + "-" + mode, func() {
				r, err := c.Call(b.Context(), Request{Op: uint16(op), Body: Wrap(nil, body)})
				if err != nil {
					b.Fatal(err)
				}
				r.Release()
			}})
		}
	}
	const turn = 2000
	costs := map[string][]float64{}
	for b.Loop() {
		for _, w := range ways {
			used := cpuUsed()
			for range turn {
				w.once()
			}
			costs[w.name] = append(costs[w.name], float64((cpuUsed()-used).Nanoseconds())/turn/1000)
		}
	}
	middle := func(name string) float64 {
		slices.Sort(costs[name])
		return costs[name][len(costs[name])/2]
	}
	for _, w := range ways {
		b.ReportMetric(middle(w.name), "cpu-us-"+w.name)
	}
	for _, name := range []string{"oneway", "echo"} {
		b.ReportMetric(middle(name+"-tls")/middle(name+"-plain"), name+"-tls/plain")
	}
}

func cpuUsed() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
