package writebuffer

import (
	"maps"
	"slices"
	"sync"

	"github.com/google/uuid"
)

// logs are the open logs of a buffer, as those from whom a file can be had. Its lock
// is not held while a log is asked.
type logs struct {
	pressed func() // Options.OnPressure, or nil

	mu   sync.Mutex
	open map[uuid.UUID]*Log
}

func (g *logs) add(l *Log) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open[l.opt.Volume] = l
}

func (g *logs) remove(l *Log) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, l.opt.Volume)
}

func (g *logs) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.open)
}

func (g *logs) all() []*Log {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Values(g.open))
}

// steal takes the prepared SCO from a log that has not begun to use it.
func (g *logs) steal() bool {
	for _, l := range g.all() {
		if s := l.giveNext(); s != nil {
			s.release()
			return true
		}
	}
	return false
}

// stealOpen closes the prepared files of a log that has not begun to use them.
func (g *logs) stealOpen() bool {
	for _, l := range g.all() {
		if l.giveBack((*section).rests) {
			return true
		}
	}
	return false
}

// press has more stored. Nobody calls it with a lock.
func (g *logs) press() {
	if g.pressed != nil {
		g.pressed()
	}
}
