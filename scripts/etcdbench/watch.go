package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"openvstorage/arakoon"
)

// watchers has 1,000 of them see 200 updates, made one at a time every 20 ms. Each sighting
// is counted from when the update began; so is the commit, which ends with its answer.
func watchers(sides []side) error {
	const count, updates = 1000, 200
	fmt.Println("\n| 1,000 watchers | commit p50, p99 ms | seen p50, p99 ms | ratio of p99 |")
	fmt.Println("|---|---|---|---|")
	for _, s := range sides {
		ctx, cancel := context.WithCancel(context.Background())
		var (
			mu    sync.Mutex
			began [updates]time.Time
			seen  []time.Duration
			all   sync.WaitGroup
		)
		all.Add(count * updates)
		for range count {
			if err := s.watch(ctx, "watched/", func(value []byte) {
				now := time.Now()
				mu.Lock()
				seen = append(seen, now.Sub(began[binary.LittleEndian.Uint32(value)]))
				mu.Unlock()
				all.Done()
			}); err != nil {
				cancel()
				return fmt.Errorf("%s: %w", s.name(), err)
			}
		}
		callers, stop, err := s.clients(1)
		if err != nil {
			cancel()
			return err
		}
		var commits []time.Duration
		for i := range updates {
			value := binary.LittleEndian.AppendUint32(nil, uint32(i))
			value = append(value, make([]byte, valueSize-len(value))...)
			mu.Lock()
			began[i] = time.Now()
			at := began[i]
			mu.Unlock()
			if err := callers[0].put(ctx, "watched/key", value); err != nil {
				cancel()
				return fmt.Errorf("%s: %w", s.name(), err)
			}
			commits = append(commits, time.Since(at))
			time.Sleep(20 * time.Millisecond)
		}
		done := make(chan struct{})
		go func() { all.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(time.Minute):
			cancel()
			return fmt.Errorf("%s: not all watchers saw all updates within a minute", s.name())
		}
		c50, c99 := percentiles(commits)
		s50, s99 := percentiles(seen)
		fmt.Printf("| %s | %.2f, %.2f | %.2f, %.2f | %.2f |\n", s.name(), c50, c99, s50, s99, s99/c99)
		stop()
		cancel()
	}
	return nil
}

// locals measures reads of our members that ask nobody.
func locals(sides []side) error {
	for _, s := range sides {
		o, ok := s.(*ovs)
		if !ok {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		callers, stop, err := o.clients(1)
		if err != nil {
			return err
		}
		defer stop()
		if err := callers[0].put(ctx, key(1), make([]byte, valueSize)); err != nil {
			return err
		}
		m, err := o.group.Leader(ctx)
		if err != nil {
			return err
		}
		var inside []int64
		for range 5 {
			var ns int64
			if err := m.Call(ctx, "/local", url.Values{"key": {key(1)}}, &ns); err != nil {
				return err
			}
			inside = append(inside, ns)
		}
		slices.Sort(inside)
		var took []time.Duration
		c := callers[0].(ovsCaller)
		for range 5000 {
			began := time.Now()
			if _, err := c.c.Get(ctx, arakoon.Local, []byte(key(1))); err != nil {
				return err
			}
			took = append(took, time.Since(began))
		}
		p50, p99 := percentiles(took)
		fmt.Printf("\nLocal reads: in process %.2f us; from another process p50 %.1f us, p99 %.1f us.\n", float64(inside[2])/1e3, p50*1e3, p99*1e3)
	}
	return nil
}

func cores() int { return runtime.NumCPU() }

// busyTime is what the processors of the machine did besides waiting.
func busyTime() time.Duration {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	var ticks int64
	for i, f := range strings.Fields(line)[1:] {
		if i == 3 || i == 4 || i > 7 { // idle, waiting for disks, and guests, which are in user
			continue
		}
		n, _ := strconv.ParseInt(f, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
