package systemd

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Check is a part of the process that must answer for the process to count as
// alive.
type Check struct {
	Name string
	// Do returns when the part has answered. It takes the locks that every user of the
	// part takes, and waits for no disk and no client: a restart would help with
	// neither.
	Do func()
}

// Watchdog tells systemd again and again that the process lives, for as long as all
// parts answer. If systemd hears nothing for as long as WatchdogSec= says, it ends the
// process with SIGABRT and starts it again. At SIGABRT Go prints what every goroutine
// waits for.
type Watchdog struct {
	every  time.Duration
	logger *slog.Logger
	tell   func(state string) error
	parts  []*part
	silent bool // not told at the last round

	stop context.CancelFunc
	done sync.WaitGroup
}

// part is a check, and the run of the check that is under way, if any.
type part struct {
	Check
	answered chan struct{}
}

// Watch starts a watchdog, if systemd wants one. Close ends it. At most one goroutine
// at a time waits for a part that does not answer.
func Watch(logger *slog.Logger, checks ...Check) *Watchdog {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		logger.Warn("no watchdog: systemd says in a way of its own how often it wants to hear", "err", err)
	}
	if err != nil || limit == 0 {
		return &Watchdog{}
	}
	return watch(logger, limit, notify, checks)
}

func watch(logger *slog.Logger, limit time.Duration, tell func(string) error, checks []Check) *Watchdog {
	// A quarter of the limit: one round may fail, and the next may last as long as the
	// time between two rounds.
	w := &Watchdog{every: limit / 4, logger: logger, tell: tell}
	for _, c := range checks {
		w.parts = append(w.parts, &part{Check: c})
	}
	var ctx context.Context
	ctx, w.stop = context.WithCancel(context.Background())
	w.done.Go(func() { w.run(ctx) })
	return w
}

// Close ends the watchdog, without waiting for parts that do not answer.
func (w *Watchdog) Close() {
	if w.stop != nil {
		w.stop()
		w.done.Wait()
	}
}

func (w *Watchdog) run(ctx context.Context) {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		w.round(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// round asks all parts, and tells systemd if all have answered.
func (w *Watchdog) round(ctx context.Context) {
	for _, p := range w.parts {
		p.ask()
	}
	late := time.NewTimer(w.every)
	defer late.Stop()
	for _, p := range w.parts {
		select {
		case <-p.answered:
			p.answered = nil
		case <-late.C:
			if !w.silent {
				w.logger.Error("a part of this process does not answer; systemd will restart it if that lasts", "part", p.Name, "after", w.every)
			}
			w.silent = true
			return
		case <-ctx.Done():
			return
		}
	}
	if err := w.tell(daemon.SdNotifyWatchdog); err != nil {
		w.logger.Warn("systemd was not told that this process lives", "err", err)
	}
	if w.silent {
		w.logger.Info("all parts of this process answer again")
	}
	w.silent = false
}

// ask starts a run of the check, unless an earlier run is still without an answer.
func (p *part) ask() {
	select {
	case <-p.answered: // too late for a round that another part has held up
	default:
		if p.answered != nil {
			return
		}
	}
	answered := make(chan struct{})
	p.answered = answered
	go func() {
		defer close(answered)
		p.Do()
	}()
}
