package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/kvclient"
)

const (
	thinking = 10 * time.Millisecond // on average, between two requests of a client
	// A client that asks seldom goes on believing in a leader that others have left: what
	// it is answered there must not be of the past.
	seldom   = 200 * time.Millisecond
	patience = 8 * time.Second  // of a client with a request
	round    = 10 * time.Second // then other keys are used
)

// client does one request after another.
type client struct {
	number int
	rng    *rand.Rand
	c      *kvclient.Client
	r      *recorder
	tokens int
	reads  bool             // it reads only
	pause  time.Duration    // on average, between two requests
	seen   map[pair]content // what it was told last
}

// clients runs so many until ctx ends, and returns when all have ended. Two share one
// connection each. A quarter only reads, and seldom. A request that is under way is seen to its end.
func clients(ctx context.Context, count int, seed uint64, r *recorder, open func() (*kvclient.Client, error)) error {
	var all sync.WaitGroup
	defer all.Wait()
	var c *kvclient.Client
	for i := range count {
		if i%2 == 0 {
			var err error
			if c, err = open(); err != nil {
				return err
			}
		}
		one := &client{number: i, rng: rand.New(rand.NewPCG(seed, uint64(i))), c: c, r: r, seen: map[pair]content{}}
		if one.pause = thinking; i >= count-count/4 {
			one.pause, one.reads = seldom, true
		}
		all.Go(func() { one.run(ctx) })
	}
	watcher, err := open()
	if err != nil {
		return err
	}
	watch(ctx, watcher, r)
	return nil
}

func (c *client) run(ctx context.Context) {
	for ctx.Err() == nil {
		in := c.some()
		one, stop := context.WithTimeout(context.Background(), patience)
		switch {
		case in.kind <= getBoth:
			c.read(one, in)
		default:
			c.write(one, in)
		}
		stop()
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(c.rng.Int64N(int64(2 * c.pause)))):
		}
	}
}

// token is a text that is used once.
func (c *client) token() string {
	c.tokens++
	return fmt.Sprintf("%d.%d", c.number, c.tokens)
}

func (c *client) some() input {
	in := input{
		kind: []int{get, get, get, getBoth, set, set, testAndSet, both, add, add}[c.rng.IntN(10)],
		pair: pair{int(c.r.now() / int64(round)), c.rng.IntN(pairs)}, side: c.rng.IntN(2),
	}
	if c.reads {
		in.kind %= getBoth + 1
	}
	if in.kind > getBoth {
		in.wanted = c.token()
	}
	if in.kind == testAndSet || in.kind == both {
		in.expected = c.seen[in.pair][in.side]
	}
	if in.kind == both {
		in.other = c.token()
	}
	return in
}

func (c *client) saw(p pair, side int, value string) {
	if len(c.seen) > 100 {
		clear(c.seen)
	}
	now := c.seen[p]
	now[side] = value
	c.seen[p] = now
}

func (c *client) read(ctx context.Context, in input) {
	call := c.r.now()
	var out output
	var err error
	if in.kind == getBoth {
		var values [][]byte
		if values, err = c.c.MultiGet(ctx, arakoon.Consistent, in.pair.key(0), in.pair.key(1)); err == nil {
			out.values = [2]string{string(values[0]), string(values[1])}
			c.saw(in.pair, 0, out.values[0])
			c.saw(in.pair, 1, out.values[1])
		}
	} else {
		var value []byte
		if value, err = c.c.Get(ctx, arakoon.Consistent, in.pair.key(in.side)); errors.As(err, new(*arakoon.ErrNotFound)) {
			err = nil
		}
		out.values[0] = string(value)
		c.saw(in.pair, in.side, out.values[0])
	}
	if err != nil {
		c.failed(in, err)
		return
	}
	out.ok = true
	c.r.done(c.number, call, in, out, 0)
}

func (c *client) write(ctx context.Context, in input) {
	call := c.r.now()
	revision, results, err := c.c.Write(ctx, in.sequence())
	switch {
	case err == nil:
	case errors.As(err, new(*arakoon.ErrAssert)) && in.kind == both:
		c.r.done(c.number, call, in, output{}, 0)
		c.saw(in.pair, in.side, "")
		return
	case errors.Is(err, arakoon.ErrUnknownOutcome):
		c.r.done(c.number, call, in, output{unknown: true}, 0)
		return
	default:
		// It was not done, which is a promise: whoever sees its value is a violation.
		c.failed(in, err)
		return
	}
	out := output{ok: true}
	switch in.kind {
	case testAndSet, add:
		out.values[0] = string(results[0].Value)
		c.saw(in.pair, in.side, out.values[0])
	case set, both:
		c.saw(in.pair, in.side, in.wanted)
	}
	c.r.done(c.number, call, in, out, revision)
	if in.kind == set && c.rng.IntN(4) == 0 {
		value, err := c.c.Get(ctx, arakoon.AtLeast(revision), in.pair.key(in.side))
		if err != nil {
			c.failed(in, err)
			return
		}
		c.r.atLeast(in.pair.key(in.side), string(value), revision)
	}
}

// failed judges an error: there are those of the interface, and no others.
func (c *client) failed(in input, err error) {
	for _, known := range []error{context.DeadlineExceeded, arakoon.ErrBusy, arakoon.ErrUnknownOutcome} {
		if errors.Is(err, known) {
			c.r.refused(known.Error())
			return
		}
	}
	c.r.violation("%v: the error %v", in, err)
}

// watch has a watcher see all that is written. Where the events that it needs are not kept
// any more it is told, and begins behind the gap.
func watch(ctx context.Context, c *kvclient.Client, r *recorder) {
	next := uint64(0)
	for ctx.Err() == nil {
		err := c.Watch(ctx, []byte("c/"), next, func(e arakoon.Events) error {
			from := next
			if next == 0 {
				from = e.Revision + 1 // of the first call: it watches from now
			}
			if e.Revision+1 < from {
				r.violation("a watcher of revision %d was told of revision %d", from, e.Revision)
			}
			if next != 0 {
				r.watched(from, e)
			}
			next = e.Revision + 1
			return nil
		})
		gap := new(arakoon.ErrCompacted)
		switch {
		case ctx.Err() != nil:
		case errors.As(err, &gap):
			if gap.First < next {
				r.violation("a watcher of revision %d was told that events before %d are gone", next, gap.First)
			}
			r.refused("compacted")
			next = gap.First
		default:
			r.violation("a watcher: the error %v", err)
			return
		}
	}
}
