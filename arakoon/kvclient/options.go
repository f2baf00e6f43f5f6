package kvclient

import (
	"fmt"
	"time"

	"openvstorage/arakoon/kv"
	"openvstorage/internal/wire"
)

// Member is a member of the group, and how to get there. Service and group of Dial are set
// by the client.
type Member struct {
	ID   uint64
	Dial wire.DialOptions
}

// Options are for New. Members must be given; zero values of the others get the defaults.
type Options struct {
	Group string
	// Members returns the members, nearest first: local reads go to the first that answers.
	// It is asked before each attempt to connect, and while nobody is known to lead, so that
	// new members and addresses are taken up. It is called from any goroutine, and must not
	// block.
	Members func() []Member

	// Sessions bounds the writes at a time: each takes one session of the 4096 that a group
	// keeps. Sessions are opened when they are first needed. Below 0: no sessions; then a
	// write is never sent twice, and one whose answer was lost fails with
	// arakoon.ErrUnknownOutcome. 64.
	Sessions int
	PageSize int           // bytes of a page of a range; kv.PageSize
	Patience time.Duration // with a member that does not answer, before others are asked who leads, or for a near read; 500 ms
	Probe    time.Duration // with a member that is asked who leads; 1 s
	Busy     time.Duration // with a member that is busy, before arakoon.ErrBusy is returned; 2 s
	First    time.Duration // before the second of several tries to find who leads; doubled for each; 5 ms
	Most     time.Duration // between two of them; 100 ms
}

func (o Options) withDefaults() (Options, error) {
	for _, d := range []struct{ v, or *time.Duration }{
		{&o.Patience, new(500 * time.Millisecond)}, {&o.Probe, new(time.Second)}, {&o.Busy, new(2 * time.Second)},
		{&o.First, new(5 * time.Millisecond)}, {&o.Most, new(100 * time.Millisecond)},
	} {
		if *d.v == 0 {
			*d.v = *d.or
		}
	}
	if o.Sessions == 0 {
		o.Sessions = 64
	}
	if o.PageSize == 0 {
		o.PageSize = kv.PageSize
	}
	switch {
	case o.Members == nil:
		return o, fmt.Errorf("arakoon/kvclient: no Members are given")
	case min(o.Patience, o.Probe, o.Busy, o.First) < 0 || o.Most < o.First:
		return o, fmt.Errorf("arakoon/kvclient: Patience %v, Probe %v, Busy %v and First %v must not be negative, nor Most %v below First", o.Patience, o.Probe, o.Busy, o.First, o.Most)
	case o.PageSize < 1 || o.PageSize > kv.PageMax:
		return o, fmt.Errorf("arakoon/kvclient: PageSize is %d; it must be between 1 and %d", o.PageSize, kv.PageMax)
	}
	return o, nil
}
