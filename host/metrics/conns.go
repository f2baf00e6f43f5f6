package metrics

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// scraperGrace is how long each connection has at least before it is closed to make room
// for a new one. So whoever fills all places, and fills them again whenever connections
// are closed, costs the process a bounded number of accepts. Other connections wait in
// the listener's queue.
const scraperGrace = 50 * time.Millisecond

// scrapers are the connections of the metrics port. When there are too many, the
// connection that has waited longest for a request is closed, or if none waits, the
// oldest. So whoever holds connections and asks for nothing keeps nobody out.
type scrapers struct {
	max   int // each costs a descriptor
	mu    sync.Mutex
	conns map[net.Conn]scraper
}

// queue is a listener that accepts when there is a place for a connection.
type queue struct {
	net.Listener
	scrapers *scrapers
	once     sync.Once
	closed   chan struct{}
}

func (s *scrapers) listen(l net.Listener) net.Listener {
	return &queue{Listener: l, scrapers: s, closed: make(chan struct{})}
}

func (q *queue) Accept() (net.Conn, error) {
	for {
		wait := q.scrapers.full(time.Now())
		if wait <= 0 {
			return q.Listener.Accept()
		}
		select {
		case <-time.After(wait):
		case <-q.closed: // so says Accept
			return q.Listener.Accept()
		}
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return q.Listener.Close()
}

// full is how long it takes until there is a place for another connection.
func (s *scrapers) full(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) < s.max {
		return 0
	}
	return s.conns[s.oldest()].came.Add(scraperGrace).Sub(now)
}

type scraper struct {
	came  time.Time
	since time.Time // it is in this state
	asks  bool      // a request is under way
}

// state is the ConnState of an http.Server.
func (s *scrapers) state(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	is := scraper{came: now}
	switch state {
	case http.StateClosed, http.StateHijacked:
		delete(s.conns, c)
		return
	case http.StateNew:
		if len(s.conns) >= s.max {
			oldest := s.oldest()
			delete(s.conns, oldest)
			_ = oldest.Close() // its server finds out
		}
	default:
		var open bool
		if is, open = s.conns[c]; !open {
			return // it was closed for another one
		}
	}
	is.since, is.asks = now, state == http.StateActive
	s.conns[c] = is
}

func (s *scrapers) oldest() (oldest net.Conn) {
	for c, is := range s.conns {
		o, one := s.conns[oldest]
		if !one || is.asks != o.asks && o.asks || is.asks == o.asks && is.since.Before(o.since) {
			oldest = c
		}
	}
	return oldest
}
