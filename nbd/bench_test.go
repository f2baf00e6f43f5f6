package nbd_test

import (
	"bytes"
	"io"
	"sync"
	"testing"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// BenchmarkServer measures server and client together over a unix socket. The
// steady state of both allocates nothing.
func BenchmarkServer(b *testing.B) {
	for _, m := range []mode{structured, extended} {
		b.Run(m.String(), func(b *testing.B) { benchmarkServer(b, m) })
	}
}

func benchmarkServer(b *testing.B, m mode) {
	for _, bench := range []struct {
		name  string
		typ   nbd.Command
		flags nbd.CommandFlags
		size  int
		depth int
	}{
		{"Read4K/QD1", nbd.CmdRead, 0, 4096, 1},
		{"Read4K/QD32", nbd.CmdRead, 0, 4096, 32},
		{"Write4K/QD1", nbd.CmdWrite, 0, 4096, 1},
		{"Write4K/QD32", nbd.CmdWrite, 0, 4096, 32},
		{"WriteFUA4K/QD32", nbd.CmdWrite, nbd.FlagFUA, 4096, 32},
		{"Flush/QD1", nbd.CmdFlush, 0, 0, 1},
		{"Read1M/QD8", nbd.CmdRead, 0, 1 << 20, 8},
		{"Write1M/QD8", nbd.CmdWrite, 0, 1 << 20, 8},
	} {
		b.Run(bench.name, func(b *testing.B) {
			opts := m.client()
			opts.InFlight = bench.depth
			c := serve(b, nbdtest.NewMemory(64<<20), nbd.Limits{}).client(opts)
			b.SetBytes(int64(bench.size))
			b.ReportAllocs()
			runBench(b, c, bench.typ, bench.flags, bench.size, bench.depth)
		})
	}
}

// runBench has a client do b.N requests, depth at a time.
func runBench(b *testing.B, c *nbdclient.Client, typ nbd.Command, flags nbd.CommandFlags, size, depth int) {
	done := make(chan *nbdclient.Request, depth)
	rs := make([]*nbdclient.Request, depth)
	for i := range rs {
		rs[i] = &nbdclient.Request{Type: typ, Flags: flags, Done: func(r *nbdclient.Request) { done <- r }}
		if size > 0 {
			rs[i].Offset, rs[i].Data = uint64(i*size), make([]byte, size)
		}
	}
	run := func(n int) {
		for n > 0 {
			round := rs[:min(n, len(rs))]
			c.Start(round...)
			for range round {
				if r := <-done; r.Err != nil {
					b.Fatal(r.Err)
				}
			}
			n -= len(round)
		}
	}
	run(10 * depth) // fill the free lists
	b.ResetTimer()
	run(b.N)
}

// BenchmarkResender is what the steps of a Resender cost where there is nothing
// to be found: the same writes by connections of one, and by ordinary ones.
func BenchmarkResender(b *testing.B) {
	for _, bench := range []struct {
		name           string
		connections, n int
	}{{"1x1", 1, 1}, {"1x32", 1, 32}, {"4x8", 4, 8}} {
		for _, resends := range []bool{false, true} {
			b.Run(bench.name+map[bool]string{false: "/ordinary", true: "/resender"}[resends], func(b *testing.B) {
				s := serve(b, nbdtest.NewMemory(64<<20), nbd.Limits{})
				var client nbd.Resender
				round := bytes.Repeat((&raw{}).frame(nbd.CmdWrite, 0, 0, 4096, make([]byte, 4096)...), bench.n)
				var all sync.WaitGroup
				b.ReportAllocs()
				b.ResetTimer()
				for range bench.connections {
					r := s.transmit(simple)
					if resends {
						r, _ = resender(b, s, &client)
					}
					all.Go(func() {
						replies := make([]byte, bench.n*nbd.SimpleReplyLen)
						for range b.N / bench.connections / bench.n {
							r.Write(round)
							if _, err := io.ReadFull(r.Conn, replies); err != nil {
								b.Error(err)
								return
							}
						}
						r.Close()
					})
				}
				all.Wait()
			})
		}
	}
}

// A Resender's steps allocate nothing.
func TestResenderAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	r, _ := resender(t, serve(t, nbdtest.NewMemory(testSize), nbd.Limits{}), new(nbd.Resender))
	write, reply := r.frame(nbd.CmdWrite, 0, 0, 4096, make([]byte, 4096)...), make([]byte, nbd.SimpleReplyLen)
	if allocs := testing.AllocsPerRun(2000, func() {
		r.send(write...)
		if _, err := io.ReadFull(r.Conn, reply); err != nil {
			t.Fatal(err)
		}
	}); allocs >= 1 {
		t.Errorf("%v allocations per write", allocs)
	}
}

// TestSteadyStateAllocatesNothing is the benchmark's claim as a test: a
// connection does thousands of requests of each kind with next to no
// allocation in the whole process.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	modes(t, func(t *testing.T, m mode) {
		for _, typ := range []nbd.Command{nbd.CmdRead, nbd.CmdWrite, nbd.CmdFlush, nbd.CmdTrim, nbd.CmdWriteZeroes, nbd.CmdCache} {
			c := serve(t, nbdtest.NewMemory(testSize), nbd.Limits{}).client(m.client())
			r := &nbdclient.Request{Type: typ}
			switch typ {
			case nbd.CmdRead, nbd.CmdWrite:
				r.Data = make([]byte, 4096)
			case nbd.CmdTrim, nbd.CmdWriteZeroes, nbd.CmdCache:
				r.Length = testSize
			}
			allocs := testing.AllocsPerRun(2000, func() {
				if err := c.Do(r); err != nil {
					t.Fatal(err)
				}
			})
			if allocs >= 1 {
				t.Errorf("%v: %v allocations per request", typ, allocs)
			}
		}
	})
}
