package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"openvstorage/backend"
	"openvstorage/internal/broadcast"
	"openvstorage/internal/wire"

	"github.com/google/uuid"
)

// Target is one proxy.
type Target struct {
	Name string // for messages: its address
	// Dial says where it is and as whom to connect; Service is the client's. It is asked before
	// each attempt to connect.
	Dial func(ctx context.Context) (wire.DialOptions, error)
}

// Options are for NewClient. Proxies must be given. The zero value of a time is its default.
type Options struct {
	Proxies  []Target      // in order of preference, 1 to 16
	Store    uuid.UUID     // that the proxies must be of; zero: any, which is for asking which it is
	Priority wire.Priority // of all that is asked by this client; default wire.Client

	// Wait is how long a call waits for a connection, while there is none to any proxy; 10 s.
	Wait time.Duration
	// Patience is how long a call waits for the answer of a proxy before it asks the next one.
	// It doubles with each attempt of a call. The last attempt, and every one if there is one
	// proxy, waits until the context of the call ends. 10 s.
	Patience time.Duration
	// Rest is how long a proxy that did not answer is asked only if no other is there; 5 s.
	Rest time.Duration
	// First and Most are the first and the longest wait between two attempts to connect to a
	// proxy; 50 ms and 1 s.
	First, Most time.Duration
	// Limits are those of the connections, whose Ping says how soon a silent proxy is found
	// dead. Their defaults are here Ping 1 s and Stall 3 s, as a proxy is near.
	Limits wire.Limits
	// Turned, if not nil, is told why a proxy was left for the next one. It must not block.
	Turned func(proxy string, why error)
}

func (o *Options) ensureDefaults() error {
	for _, d := range []struct {
		v  *time.Duration
		to time.Duration
	}{
		{&o.Wait, 10 * time.Second}, {&o.Patience, 10 * time.Second}, {&o.Rest, 5 * time.Second}, {&o.First, 50 * time.Millisecond},
		{&o.Most, max(time.Second, o.First)}, {&o.Limits.Ping, time.Second}, {&o.Limits.Stall, 3 * time.Second},
	} {
		if *d.v == 0 {
			*d.v = d.to
		}
		if *d.v < 0 {
			return fmt.Errorf("proxy: a time of %v makes no sense", *d.v)
		}
	}
	if len(o.Proxies) < 1 || len(o.Proxies) > ProxiesMax {
		return fmt.Errorf("proxy: %d proxies, between 1 and %d may be", len(o.Proxies), ProxiesMax)
	}
	return nil
}

// ProxiesMax is how many proxies a client may have.
const ProxiesMax = 16

// Client is a backend.Store behind proxies. It keeps a connection to each. Safe for concurrent use.
type Client struct {
	o       Options
	peers   []*peer
	numbers atomic.Uint64       // of what proxies hold
	changed broadcast.Broadcast // a connection came or went
	closed  atomic.Bool
}

var _ backend.Store = (*Client)(nil)

// peer is one proxy as the client sees it.
type peer struct {
	name  string
	wire  *wire.Redialer
	local atomic.Bool  // it is reached by a unix socket: nothing is checksummed on the way
	rests atomic.Int64 // until then, in nanoseconds since began
}

var began = time.Now()

func (p *peer) resting() bool { return time.Since(began) < time.Duration(p.rests.Load()) }

func (p *peer) rest(d time.Duration) { p.rests.Store(int64(time.Since(began) + d)) }

func (p *peer) connected() bool {
	c, err := p.wire.Conn()
	return err == nil && c != nil
}

// NewClient begins to connect to all proxies.
func NewClient(o Options) (*Client, error) {
	if err := o.ensureDefaults(); err != nil {
		return nil, err
	}
	c := &Client{o: o}
	for _, t := range o.Proxies {
		if err := c.add(t); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

func (c *Client) add(t Target) (err error) {
	if t.Name == "" || t.Dial == nil {
		return errors.New("proxy: a Target needs a Name and Dial")
	}
	p := &peer{name: t.Name}
	p.wire, err = wire.NewRedialer(wire.RedialOptions{
		First: c.o.First, Most: c.o.Most,
		Target: func(ctx context.Context) (wire.DialOptions, error) {
			d, err := t.Dial(ctx)
			d.Service, d.Group, d.Limits = Service, "", c.o.Limits
			if c.o.Store != uuid.Nil {
				d.Group = c.o.Store.String()
			}
			return d, err
		},
		Up: func(conn *wire.Conn) {
			p.local.Store(!summed(conn.Peer().Addr))
			c.changed.Send()
		},
		Down: func(error) { c.changed.Send() },
	})
	if err != nil {
		return fmt.Errorf("proxy %s: %w", t.Name, err)
	}
	c.peers = append(c.peers, p)
	return nil
}

// Close ends the connections. Calls that are under way fail, with an unknown outcome if they had
// begun.
func (c *Client) Close() error {
	c.closed.Store(true)
	c.changed.Send()
	for _, p := range c.peers {
		p.wire.Close()
	}
	return nil
}

// Ready waits for a connection to a proxy, and says why there is none when ctx ends.
func (c *Client) Ready(ctx context.Context) error {
	for {
		next := c.changed.Next()
		if c.closed.Load() {
			return backend.ErrClosed
		}
		if slices.ContainsFunc(c.peers, (*peer).connected) {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return c.unreachable(context.Cause(ctx))
		}
	}
}

// unreachable says why there is no connection to any proxy.
func (c *Client) unreachable(why error) error {
	var each []string
	for _, p := range c.peers {
		if _, err := p.wire.Conn(); err != nil {
			each = append(each, fmt.Sprintf("%s: %v", p.name, err))
		}
	}
	return fmt.Errorf("%w: %w (%s)", ErrUnreachable, why, strings.Join(each, "; "))
}

// Connected returns the names of the proxies that there is a connection to.
func (c *Client) Connected() (names []string) {
	for _, p := range c.peers {
		if p.connected() {
			names = append(names, p.name)
		}
	}
	return names
}

// CreateNamespace implements backend.Store.
func (c *Client) CreateNamespace(ctx context.Context, name string) error {
	return c.change(ctx, opCreate, name)
}

// DeleteNamespace implements backend.Store.
func (c *Client) DeleteNamespace(ctx context.Context, name string) error {
	return c.change(ctx, opRemove, name)
}

func (c *Client) change(ctx context.Context, op uint16, name string) error {
	if err := backend.CheckName(name); err != nil {
		return err
	}
	return c.ask(ctx, asked{op: op, class: once, what: "namespace " + name, header: appendName(nil, name)}, nil)
}

// Namespace implements backend.Store.
func (c *Client) Namespace(name string) backend.Namespace { return &namespace{c, name} }

// ListNamespaces implements backend.Store.
func (c *Client) ListNamespaces(ctx context.Context) (all []string, err error) {
	after := ""
	for {
		var page []string
		more := false
		err := c.ask(ctx, asked{op: opNamespaces, header: appendName(nil, after)}, func(r *wire.Reply) (err error) {
			page, more, err = decodeNamesPage(r, deleteMax)
			return err
		})
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if !more || len(page) == 0 {
			return all, nil
		}
		after = page[len(page)-1]
	}
}

func decodeNamesPage(r *wire.Reply, most int) ([]string, bool, error) {
	count, more, err := decodePage(r.Header)
	if err != nil {
		return nil, false, err
	}
	names, err := decodeNames(count, r.Body, most)
	return names, more, err
}

// Usage implements backend.Store.
func (c *Client) Usage(ctx context.Context) (used, free uint64, err error) {
	err = c.ask(ctx, asked{op: opUsage}, func(r *wire.Reply) error {
		f := read(r.Header)
		used, free = f.U64(), f.U64()
		return f.End()
	})
	return used, free, err
}

// Identify returns which store the proxies are of.
func (c *Client) Identify(ctx context.Context) (id uuid.UUID, err error) {
	err = c.ask(ctx, asked{op: opIdentify}, func(r *wire.Reply) error {
		f := read(r.Header)
		copy(id[:], f.Take(len(id)))
		return f.End()
	})
	return id, err
}

// Stats returns the counts of the proxy that is asked first, which are of all its clients.
func (c *Client) Stats(ctx context.Context) (list []NamespaceStats, err error) {
	err = c.ask(ctx, asked{op: opStats}, func(r *wire.Reply) error {
		count, _, err := decodePage(r.Header)
		if err == nil {
			list, err = decodeStats(count, r.Body)
		}
		return err
	})
	return list, err
}
