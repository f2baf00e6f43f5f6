package main

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// scrapers are the connections of the metrics port. When there are too many the
// one that has waited longest for a request is closed, or else the oldest: so
// whoever holds connections and asks for nothing keeps nobody out.
type scrapers struct {
	max   int // each costs a descriptor
	mu    sync.Mutex
	conns map[net.Conn]scraper
}

type scraper struct {
	since time.Time // it is in this state
	asks  bool      // a request is under way
}

// state is the ConnState of an http.Server.
func (s *scrapers) state(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
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
		if _, open := s.conns[c]; !open {
			return // it was closed for another one
		}
	}
	s.conns[c] = scraper{since: time.Now(), asks: state == http.StateActive}
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
