package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
)

const fuaInFlight = 32

// fuaWrites keeps 32 random writes of 4 KiB in flight, each with FUA. fio's nbd engine
// never sets that flag, so both contenders get their load from our own client. A peer
// in writethrough mode makes every write durable anyway.
func fuaWrites(ctx context.Context, o options, c *contender) (one, error) {
	conn, err := nbdclient.Dial(ctx, "unix", c.socket, nbdclient.Options{Export: c.export, InFlight: fuaInFlight})
	if err != nil {
		return one{}, err
	}
	defer conn.Abort()

	type slot struct {
		nbdclient.Request
		sent time.Time
	}
	done := make(chan *slot, fuaInFlight) // never blocks the receiver
	again := make([]*nbdclient.Request, 0, fuaInFlight)
	random := rand.New(rand.NewPCG(1, 2))
	send := func(s *slot) {
		s.Offset = uint64(random.Int64N(workingSet/4096)) * 4096
		s.sent = time.Now()
		again = append(again, &s.Request)
	}
	for range fuaInFlight {
		s := &slot{Request: nbdclient.Request{Type: nbd.CmdWrite, Flags: nbd.FlagFUA, Data: make([]byte, 4096)}}
		for i := range s.Data {
			s.Data[i] = byte(random.Uint32())
		}
		s.Done = func(*nbdclient.Request) { done <- s }
		send(s)
	}
	conn.Start(again...)

	var latencies []time.Duration
	start := time.Now()
	for time.Since(start) < o.time {
		if err := ctx.Err(); err != nil {
			return one{}, err
		}
		again = again[:0]
		// All that have come since the last time go out as one batch again.
		for s := <-done; ; s = <-done {
			if s.Err != nil {
				return one{}, s.Err
			}
			latencies = append(latencies, time.Since(s.sent))
			send(s)
			if len(done) == 0 {
				break
			}
		}
		conn.Start(again...)
	}
	rate := float64(len(latencies)) / time.Since(start).Seconds()
	slices.Sort(latencies)
	return one{figure: rate / 1000, p50: latencies[len(latencies)/2], p99: latencies[len(latencies)*99/100]}, nil
}
