// Command etcdbench measures a group of three members of scripts/member beside three servers
// of etcd 3.7.3: processes on one machine and disk, synced writes, values of 256 bytes. It is
// a module of its own, so that etcd is no dependency of the product.
//
//	go run . [-dir DIR] [-time 4s] [-rounds 5] [-clients 1,64,256] [-only puts,reads,watch,local] [-profile DIR] [-side ovs|etcd]
//
// or `make bench-etcd`, with BENCH= for flags.
//
// Rounds go by turns, and each cell is the median of its rounds. A client is a goroutine that
// does one call after another; up to 16 share a connection. Clients of both know who leads
// and ask only there. Reads are linearizable. It prints how busy the machine was besides.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// valueSize is that of all values.
const valueSize = 256

// keys is how many there are.
const keys = 10000

// side is one of the two systems.
type side interface {
	name() string
	// clients makes count callers that share connections.
	clients(count int) ([]caller, func(), error)
	// cpu is the processor time of all servers.
	cpu() time.Duration
	// watch begins a watch of the prefix and returns when it is established. seen is
	// called with each value.
	watch(ctx context.Context, prefix string, seen func(value []byte)) error
	close()
}

// caller does one call at a time.
type caller interface {
	put(ctx context.Context, key string, value []byte) error
	get(ctx context.Context, key string) error
}

type options struct {
	dir, profile, side string
	length             time.Duration
	rounds             int
	clients            []int
	only               []string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve-etcd" {
		serveEtcd(os.Args[2:])
		return
	}
	var o options
	clients := flag.String("clients", "1,64,256", "numbers of clients")
	only := flag.String("only", "puts,reads,watch,local", "what is measured")
	flag.StringVar(&o.dir, "dir", "", "for data; default a new one in the working directory")
	flag.StringVar(&o.profile, "profile", "", "where CPU profiles of our leader go; none if empty")
	flag.StringVar(&o.side, "side", "", "only this one: ovs or etcd")
	flag.DurationVar(&o.length, "time", 4*time.Second, "of a round")
	flag.IntVar(&o.rounds, "rounds", 5, "for each cell")
	flag.Parse()
	for n := range strings.SplitSeq(*clients, ",") {
		i, err := strconv.Atoi(n)
		if err != nil {
			fmt.Fprintln(os.Stderr, "etcdbench:", err)
			os.Exit(2)
		}
		o.clients = append(o.clients, i)
	}
	o.only = strings.Split(*only, ",")
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "etcdbench:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	if o.dir == "" {
		var err error
		if o.dir, err = os.MkdirTemp(".", "data-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.dir)
	}
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return err
	}
	var sides []side
	defer func() {
		for _, s := range sides {
			s.close()
		}
	}()
	for name, start := range map[string]func(string, string) (side, error){"ovs": startOvs, "etcd": startEtcd} {
		if o.side != "" && o.side != name {
			continue
		}
		s, err := start(filepath.Join(dir, name), o.profile)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		sides = append(sides, s)
	}
	slices.SortFunc(sides, func(a, b side) int { return strings.Compare(b.name(), a.name()) }) // ovs first
	busy := busyTime()
	began := time.Now()
	fmt.Println("| | clients | ovs op/s | etcd op/s | ratio | ovs p50, p99 ms | etcd p50, p99 ms | CPU us/op of servers |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for _, what := range []string{"puts", "reads"} {
		if !slices.Contains(o.only, what) {
			continue
		}
		for _, n := range o.clients {
			if err := compare(o, sides, what, n); err != nil {
				return fmt.Errorf("%s by %d clients: %w", what, n, err)
			}
		}
	}
	if slices.Contains(o.only, "watch") {
		if err := watchers(sides); err != nil {
			return err
		}
	}
	if slices.Contains(o.only, "local") {
		if err := locals(sides); err != nil {
			return err
		}
	}
	used := busyTime() - busy
	fmt.Printf("\nThe whole machine used %.2f of %d cores in these %v.\n", used.Seconds()/time.Since(began).Seconds(), cores(), time.Since(began).Round(time.Second))
	return nil
}

// figure is one round of one cell.
type figure struct{ rate, p50, p99, cpu float64 }

func compare(o options, sides []side, what string, clients int) error {
	cells := map[string][]figure{}
	for round := range o.rounds {
		for i := range sides {
			s := sides[(i+round)%len(sides)]
			f, err := measure(s, what, clients, o.length)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name(), err)
			}
			cells[s.name()] = append(cells[s.name()], f)
		}
	}
	of := func(name string, f func(figure) float64) float64 {
		var v []float64
		for _, c := range cells[name] {
			v = append(v, f(c))
		}
		if len(v) == 0 {
			return 0
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	rate := func(f figure) float64 { return f.rate }
	p50 := func(f figure) float64 { return f.p50 }
	p99 := func(f figure) float64 { return f.p99 }
	cpu := func(f figure) float64 { return f.cpu }
	fmt.Printf("| %s | %d | %.0f | %.0f | %.2f | %.2f, %.2f | %.2f, %.2f | %.0f, %.0f |\n", what, clients,
		of("ovs", rate), of("etcd", rate), of("ovs", rate)/of("etcd", rate),
		of("ovs", p50), of("ovs", p99), of("etcd", p50), of("etcd", p99), of("ovs", cpu), of("etcd", cpu))
	return nil
}

// measure runs one round, after a warm-up of a fifth of its time.
func measure(s side, what string, clients int, length time.Duration) (figure, error) {
	callers, stop, err := s.clients(clients)
	if err != nil {
		return figure{}, err
	}
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), length+30*time.Second)
	defer cancel()
	value := make([]byte, valueSize)
	if what == "reads" {
		// All keys are there.
		for k := range 100 {
			if err := callers[0].put(ctx, key(k), value); err != nil {
				return figure{}, err
			}
		}
	}
	var (
		all      sync.WaitGroup
		counting atomic.Bool
		ended    atomic.Bool
		failure  atomic.Pointer[error]
		took     = make([][]time.Duration, clients)
	)
	for i, c := range callers {
		all.Go(func() {
			for n := i * 31; !ended.Load(); n++ {
				began := time.Now()
				var err error
				if what == "puts" {
					err = c.put(ctx, key(n%keys), value)
				} else {
					err = c.get(ctx, key(n%100))
				}
				if err != nil {
					failure.Store(&err)
					return
				}
				if counting.Load() {
					took[i] = append(took[i], time.Since(began))
				}
			}
		})
	}
	time.Sleep(length / 5)
	cpu, began := s.cpu(), time.Now()
	counting.Store(true)
	time.Sleep(length)
	counting.Store(false)
	cpu, lasted := s.cpu()-cpu, time.Since(began)
	ended.Store(true)
	all.Wait()
	if e := failure.Load(); e != nil {
		return figure{}, *e
	}
	list := slices.Concat(took...)
	if len(list) == 0 {
		return figure{}, fmt.Errorf("nothing was answered in %v", length)
	}
	p50, p99 := percentiles(list)
	return figure{float64(len(list)) / lasted.Seconds(), p50, p99, float64(cpu.Microseconds()) / float64(len(list))}, nil
}

func key(n int) string { return fmt.Sprintf("key/%08d", n) }

// percentiles are in milliseconds.
func percentiles(list []time.Duration) (p50, p99 float64) {
	slices.Sort(list)
	return list[len(list)/2].Seconds() * 1e3, list[len(list)*99/100].Seconds() * 1e3
}
