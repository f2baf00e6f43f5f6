package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"openvstorage/arakoon"
)

// watcher builds a map of what it is told, at one member after another. Where events are
// kept no more it reads the keys, and goes on from there.
type watcher struct {
	group *group
	id    uint64 // in what differs
	rng   *rand.Rand
	quit  context.Context

	mu      sync.Mutex
	content map[string]string
	next    uint64 // revision; 0: it has read nothing yet
	seen    map[touched]bool
	read    []span // revisions that it did not watch
	jumps   int
}

// span is revisions, both ends included.
type span struct{ first, last uint64 }

func newWatcher(g *group, number int, quit context.Context) *watcher {
	return &watcher{
		group: g, id: 1000 + uint64(number), rng: rand.New(rand.NewPCG(g.plan.seed, 300+uint64(number))), quit: quit,
		content: map[string]string{}, seen: map[touched]bool{},
	}
}

func (w *watcher) run() {
	for w.quit.Err() == nil {
		all := w.group.all()
		n, l := all[w.rng.IntN(len(all))].node()
		if n == nil || w.next == 0 && !w.begin(n, l, 0) {
			w.pause(50 * time.Millisecond)
			continue
		}
		ctx, cancel := context.WithTimeout(w.quit, time.Duration(w.rng.Int64N(int64(3*time.Second))))
		err := n.Watch(ctx, nil, w.next, w.told)
		cancel()
		var gone *arakoon.ErrCompacted
		if errors.As(err, &gone) {
			w.begin(n, l, gone.First)
		}
		w.pause(time.Millisecond)
	}
}

func (w *watcher) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.quit.Done():
	}
}

// begin reads the keys as of some revision from which on a member can tell of events.
func (w *watcher) begin(n *arakoon.Node, l *life, first uint64) bool {
	text := map[string]string{}
	before, err := n.Visible()
	if err != nil || before+1 < max(first, w.next) || before == 0 {
		return false // the member is behind
	}
	err = n.Range(w.quit, arakoon.Local, nil, nil, 0, func(k, v []byte) bool {
		text[string(k)] = string(v)
		return true
	})
	if after, e := n.Visible(); err != nil || e != nil || after != before || l.over() {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.content = text
	w.read = append(w.read, span{w.next, before})
	w.next, w.jumps = before+1, w.jumps+1
	return true
}

// told takes events.
func (w *watcher) told(e arakoon.Events) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(e.List) > 0 && e.Revision < w.next {
		w.group.watch.violation("a watcher is told of revision %d, and was to be told from %d on", e.Revision, w.next)
	}
	for _, one := range e.List {
		w.seen[touched{string(one.Key), e.Revision}] = true
		if one.Deleted {
			delete(w.content, string(one.Key))
			continue
		}
		w.content[string(one.Key)] = string(one.Value)
	}
	if e.Revision < w.next {
		return nil
	}
	w.next = e.Revision + 1
	all := ""
	for _, k := range slices.Sorted(maps.Keys(w.content)) {
		all += fmt.Sprintf("%s=%s\n", k, w.content[k])
	}
	w.group.watch.has(w.id, e.Revision, all)
	return nil
}

// until waits until the watcher was told all up to a revision, and says what it has missed
// of what was written.
func (w *watcher) until(revision uint64) error {
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		w.mu.Lock()
		next := w.next
		w.mu.Unlock()
		if next > revision {
			break
		}
		if time.Since(began) > healing {
			return fmt.Errorf("a watcher was not told up to revision %d within %v: it is at %d", revision, healing, next)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.group.record.mu.Lock()
	defer w.group.record.mu.Unlock()
	for t := range w.group.record.touched {
		over := slices.ContainsFunc(w.read, func(s span) bool { return s.first <= t.index && t.index <= s.last })
		if !over && t.index < w.next && !w.seen[t] {
			return fmt.Errorf("a watcher at revision %d was not told that revision %d wrote %s", w.next-1, t.index, t.key)
		}
	}
	return nil
}
