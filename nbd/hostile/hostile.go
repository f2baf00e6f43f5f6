// Package hostile is a client that does harm. It makes an NBD server hold as much memory as it can, or
// takes connections that others need, in every way that once worked. Tests run the attacks against a
// server and measure what it holds; the program in scripts/hostile runs them beside a guest.
//
// The client has no goroutines and next to no memory of its own. So in a process with a server and
// this client, goroutines and memory are the server's.
package hostile

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Target is what is attacked.
type Target struct {
	Network, Address string // "unix" and a path, or "tcp" and an address of IPv4
	Export           string // of at least 32 MiB
}

// Attack is one way to do harm.
type Attack struct {
	Name  string
	About string

	// Connections is how many it takes to do harm, on the server that it was
	// found with.
	Connections int

	// Metrics is set for an attack on the metrics port, which is not NBD's.
	Metrics bool

	// TLS is set for an attack on an address with TLS.
	TLS bool

	// Stays is set where the connections are such as an ordinary client has: no
	// server can tell whom to send away when there is no place left.
	Stays bool

	open func(l *link, t Target) error // brings a fresh connection into its state
	nag  func(l *link) error           // keeps it there; nil: it stays by itself
}

// Attacks are all there are.
func Attacks() []Attack { return attacks }

// Held are the connections of an attack under way.
type Held struct {
	attack Attack
	target Target
	want   int
	links  []*link

	Opened  int // connections, and those that took the place of others
	Refused int // that the server did not take, or ended before they did harm
	Ended   int // that it ended later
}

// Begin opens n connections, or as many as the server takes, and attacks once on each.
func (a Attack) Begin(t Target, n int) (*Held, error) {
	h := &Held{attack: a, target: t, want: n}
	return h, h.fill()
}

// fill opens the connections that are missing, until the server takes no more.
func (h *Held) fill() error {
	const patience = 8
	for refused := 0; len(h.links) < h.want && refused < patience; {
		l, err := dial(h.target)
		if err != nil {
			return fmt.Errorf("hostile: %s: %w", h.attack.Name, err)
		}
		if err := h.attack.open(l, h.target); err != nil {
			l.close()
			h.Refused++
			refused++
			continue
		}
		h.Opened++
		h.links = append(h.links, l)
	}
	return nil
}

// Release ends the last n connections and does not open them again: others get their places.
func (h *Held) Release(n int) {
	n = min(n, len(h.links))
	for _, l := range h.links[len(h.links)-n:] {
		l.close()
	}
	h.links = h.links[:len(h.links)-n]
	h.want = len(h.links)
}

// Connections is how many there are now.
func (h *Held) Connections() int { return len(h.links) }

// Nag does on each connection what keeps the server from ending it, and opens new connections in the
// place of those that the server has ended.
func (h *Held) Nag() error {
	kept := h.links[:0]
	for _, l := range h.links {
		if h.attack.nag != nil {
			if err := h.attack.nag(l); err != nil && !errors.Is(err, unix.EAGAIN) {
				l.close()
				h.Ended++
				continue
			}
		} else if l.ended() {
			l.close()
			h.Ended++
			continue
		}
		kept = append(kept, l)
	}
	h.links = kept
	return h.fill()
}

// Close ends all connections.
func (h *Held) Close() {
	for _, l := range h.links {
		l.close()
	}
	h.links = nil
}
