package maintenance

import (
	"log/slog"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/fleet"
	"openvstorage/alba/nsm"
)

// Options configure Maintenance. ABM, Host and Fleet must be given.
type Options struct {
	ABM        *abm.Client
	Host       func(number uint64) (*nsm.Client, error) // an NSM host, by its number
	Fleet      *fleet.Fleet
	Invalidate func(namespace uint64, name string) // hears of objects whose fragments moved
	MayDelete  func() error                        // why nothing may be deleted on disks now, or nil; default: nil
	Logger     *slog.Logger

	Tick         time.Duration // between looks at what there is to do; default 1 s
	Survey       time.Duration // between looks at all namespaces; default 30 s
	Collect      time.Duration // between collections of orphans; default 1 h
	Grace        time.Duration // how long an upload may take before its epoch is closed; default 1 min
	RebuildAfter time.Duration // how long a disk is missing before its fragments are made again elsewhere; default 15 min
	Scrub        time.Duration // in which all of a disk is read back once; default ScrubTime, negative: never
	QueueLength  int           // objects, and fragments reported bad, that wait for a repair; default 10,000
	Retry        time.Duration // before a repair that failed is tried again, twice as long with each failure; default 1 s, negative: at once
	RetryMax     time.Duration // at most; default 5 min

	// Agent is the name under which this process shares the repair with others, over the work
	// queue of the ABM, whose group must be at level 4. No other process has the name, nor
	// had. "": it is alone, and repairs without the queue.
	Agent string
	Lease time.Duration // after which an agent's work is taken over if it shows no life; the same for all agents; default 30 s

	// Balance is by how much of their size one disk may be fuller than another before fragments
	// move; default 0.1. Negative: fragments are moved neither for that nor for the sake of
	// nodes and zones.
	Balance float64

	// Clients returns how many bytes clients have moved so far, for package pace: repair, moves
	// and scrub go as fast as leaves clients most of their speed. Nil: there are no clients.
	Clients func() uint64
	Rate    int64 // bytes a second that maintenance moves at most; default 0: as many as it can

	// ScrubKept returns what ScrubKeep was given last, nil if nothing; ScrubKeep keeps
	// it over a restart. Default: nothing is kept.
	ScrubKept func() ([]byte, error)
	ScrubKeep func([]byte) error

	Now func() time.Time // the clock; nil: the machine's
}

func (o *Options) ensureDefaults() {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&o.Tick, time.Second}, {&o.Survey, 30 * time.Second}, {&o.Collect, time.Hour}, {&o.Grace, time.Minute},
		{&o.RebuildAfter, 15 * time.Minute}, {&o.Scrub, ScrubTime},
		{&o.Retry, time.Second}, {&o.RetryMax, 5 * time.Minute},
	} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if o.Balance == 0 {
		o.Balance = 0.1
	}
	if o.QueueLength == 0 {
		o.QueueLength = 10_000
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Invalidate == nil {
		o.Invalidate = func(uint64, string) {}
	}
	if o.ScrubKept == nil {
		o.ScrubKept, o.ScrubKeep = func() ([]byte, error) { return nil, nil }, func([]byte) error { return nil }
	}
	if o.MayDelete == nil {
		o.MayDelete = func() error { return nil }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}
