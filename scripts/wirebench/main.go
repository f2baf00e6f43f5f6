// Command wirebench measures internal/wire beside a bare socket, gRPC and HTTP/2: an echo of
// 64 B, 4 KiB and 1 MiB, with 1 and 64 requests in flight, over TCP on loopback, plain and
// with TLS 1.3. Both ends are in this process; CPU is that of both. It is a module of its
// own, so that gRPC is no dependency of the product.
//
//	go run . [-time 200ms] [-rounds 3] [-only wire,bare,grpc,http2] [-sizes 64,4096,1048576]
//
// Each cell is the median of the rounds, which go by turns: operations a second, and
// microseconds of CPU and allocations of one.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// caller sends a body and gets the same back.
type caller func(body []byte) error

// peer starts a server and returns what calls it, and what ends both.
type peer struct {
	name  string
	start func(server, client *tls.Config) (caller, func(), error)
}

var peers = []peer{{"bare", startBare}, {"wire", startWire}, {"wire inline", startWireInline}, {"grpc", startGRPC}, {"http2", startHTTP2}}

// figure is one round of one cell.
type figure struct{ rate, cpu, allocs float64 }

func main() {
	length := flag.Duration("time", 200*time.Millisecond, "of a round")
	rounds := flag.Int("rounds", 3, "for each cell")
	only := flag.String("only", "", "peers, separated by commas")
	sizes := flag.String("sizes", "64,4096,1048576", "bytes of a body")
	flag.Parse()
	if err := run(*length, *rounds, *only, *sizes); err != nil {
		fmt.Fprintln(os.Stderr, "wirebench:", err)
		os.Exit(1)
	}
}

func run(length time.Duration, rounds int, only, sizes string) error {
	server, client, err := certificates()
	if err != nil {
		return err
	}
	fmt.Println("| | bytes | in flight | " + "op/s | CPU us/op | allocs/op |")
	fmt.Println("|---|---|---|---|---|---|")
	for _, secure := range []bool{false, true} {
		for size := range strings.SplitSeq(sizes, ",") {
			n, err := strconv.Atoi(size)
			if err != nil {
				return err
			}
			for _, flight := range []int{1, 64} {
				cells := map[string][]figure{}
				for range rounds {
					for _, p := range peers {
						if only != "" && !slices.Contains(strings.Split(only, ","), p.name) || p.name == "bare" && flight > 1 {
							continue
						}
						s, c := server, client
						if !secure {
							s, c = nil, nil
						}
						f, err := measure(p, s, c, n, flight, length)
						if err != nil {
							return fmt.Errorf("%s: %w", p.name, err)
						}
						cells[p.name] = append(cells[p.name], f)
					}
				}
				for _, p := range peers {
					if c := cells[p.name]; len(c) > 0 {
						name := p.name
						if secure {
							name += ", TLS"
						}
						fmt.Printf("| %s | %d | %d | %.0f | %.1f | %.0f |\n", name, n, flight, median(c, func(f figure) float64 { return f.rate }),
							median(c, func(f figure) float64 { return f.cpu }), median(c, func(f figure) float64 { return f.allocs }))
					}
				}
			}
		}
	}
	return nil
}

func median(all []figure, of func(figure) float64) float64 {
	v := make([]float64, len(all))
	for i, f := range all {
		v[i] = of(f)
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure runs one round, after a short warm-up.
func measure(p peer, server, client *tls.Config, size, flight int, length time.Duration) (figure, error) {
	call, stop, err := p.start(server, client)
	if err != nil {
		return figure{}, err
	}
	defer stop()
	var count atomic.Int64
	var failed atomic.Pointer[error]
	var done atomic.Bool
	var all sync.WaitGroup
	for range flight {
		all.Go(func() {
			body := make([]byte, size)
			for !done.Load() {
				if err := call(body); err != nil {
					failed.Store(&err)
					return
				}
				count.Add(1)
			}
		})
	}
	time.Sleep(length / 4)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n, used, began := count.Load(), cpu(), time.Now()
	time.Sleep(length)
	took, spent := time.Since(began), cpu()-used
	n = count.Load() - n
	runtime.ReadMemStats(&after)
	done.Store(true)
	all.Wait()
	if err := failed.Load(); err != nil {
		return figure{}, *err
	}
	ops := float64(max(n, 1))
	return figure{float64(n) / took.Seconds(), float64(spent.Microseconds()) / ops, float64(after.Mallocs-before.Mallocs) / ops}, nil
}
