package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"openvstorage/host/roster"
	"openvstorage/internal/ctxlock"
	"openvstorage/internal/keyswap"
	"openvstorage/internal/wire"
	"openvstorage/trust"
)

// link is the connection of a host that has joined to one that holds the config group. It
// is the trust.Store of such a host, which reads. It is made when it is needed, and anew
// when it has ended.
type link struct {
	of   *Host
	lock ctxlock.Lock // of making a connection
	conn atomic.Pointer[wire.Conn]
}

var _ trust.Store = (*link)(nil)

func newLink(of *Host) *link { return &link{of: of, lock: ctxlock.New()} }

// dialTime bounds how long one address is tried.
const dialTime = 5 * time.Second

var limits = wire.Limits{Handshake: dialTime}

// target is an address that is tried, and which host is there; the zero UUID: not known yet.
type target struct {
	host    uuid.UUID
	address string
}

// get returns a connection on which this host has announced itself.
func (l *link) get(ctx context.Context) (*wire.Conn, error) {
	if c := l.conn.Load(); c != nil && c.Err() == nil {
		return c, nil
	}
	if err := l.lock.Take(ctx); err != nil {
		return nil, err
	}
	defer l.lock.Give()
	old := l.conn.Load()
	if old != nil && old.Err() == nil {
		return old, nil
	}
	if err := l.of.ctx.Err(); err != nil {
		return nil, err
	}
	if old != nil {
		_ = old.Close()
	}
	c, err := l.each(ctx, ServiceHosts, l.of.book.targets(l.of.id, l.of.o.Holders()), l.announce)
	if err != nil {
		return nil, err
	}
	l.conn.Store(c)
	if l.of.ctx.Err() != nil { // close came before
		_ = c.Close()
	}
	return c, nil
}

// each connects to one host after the other, until one takes what is asked.
func (l *link) each(ctx context.Context, service string, targets []target, ask func(context.Context, *wire.Conn) error) (*wire.Conn, error) {
	if len(targets) == 0 {
		return nil, errors.New("no address of another host is known")
	}
	var errs []error
	for _, t := range targets {
		c, err := l.dial(ctx, service, t)
		if err == nil {
			if err = ask(ctx, c); err == nil {
				return c, nil
			}
			_ = c.Close()
		}
		errs = append(errs, fmt.Errorf("%s: %w", t.address, err))
		if ctx.Err() != nil || errors.Is(err, roster.ErrCopy) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (l *link) dial(ctx context.Context, service string, t target) (*wire.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	o := l.of.DialOptions(ctx, t.host, service)
	o.Network, o.Address = "tcp", t.address
	c, err := wire.Dial(ctx, o)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// DialOptions are those of a connection to a service of a host of the cluster, any host if
// it is the zero UUID, but for where that is. ctx bounds the handshake.
func (h *Host) DialOptions(ctx context.Context, host uuid.UUID, service string) wire.DialOptions {
	return wire.DialOptions{
		Service: service, Identity: h.identity(), Limits: limits, MinLevel: h.o.least(),
		TLS: h.guard.Client(ctx, trust.Dial{Host: host, Protocol: service}), Admit: h.notOlder,
	}
}

// LevelAt has h ask another host, at an address, for the newest level that its release knows. The process
// that answers there now says it, in its preface.
func LevelAt(ctx context.Context, h *Host, host uuid.UUID, address string) (uint32, error) {
	o := h.DialOptions(ctx, host, ServiceHosts)
	o.Network, o.Address, o.MinLevel = "tcp", address, 0
	c, err := wire.Dial(ctx, o)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return LevelOf(c.Peer().Level), nil
}

// notOlder refuses whoever answers from an older copy of a data directory. What it says of
// itself is worth as much as its certificate, which was checked.
func (h *Host) notOlder(p *wire.Peer) error {
	if newest := h.marks.of(p.Host); p.Generation < newest.Number {
		return fmt.Errorf("host %s: %w, an older one: it is of generation %d, and this host has seen %d", p.Host, roster.ErrCopy, p.Generation, newest.Number)
	}
	return nil
}

// announce tells the other side where this host is. A refusal because this directory is a
// copy ends this host: the other copy is in use.
func (l *link) announce(ctx context.Context, c *wire.Conn) error {
	_, err := ask(ctx, c, opAnnounce, l.of.mark.Append(nil), roster.EncodeAnnouncement(l.of.record(), l.of.history))
	if errors.Is(err, roster.ErrCopy) {
		l.of.fail(err)
	}
	return err
}

// remoteError is an error that another host answered.
type remoteError struct {
	text string
	kind error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

var (
	errRefused     = errors.New("refused by the other host")
	errNotDone     = errors.New("the other host could not do it")
	errUnannounced = errors.New("not announced")
)

// ask sends one request and returns the body of its answer, which is the caller's.
func ask(ctx context.Context, c *wire.Conn, op uint16, header, body []byte) ([]byte, error) {
	r, err := c.Call(ctx, wire.Request{Op: op, Header: header, Body: wire.Wrap(nil, body), Sum: true})
	if err != nil {
		return nil, err
	}
	defer r.Release()
	b := append([]byte{}, r.Body...)
	switch r.Status {
	case uint16(wire.CodeOK):
		return b, nil
	case statusRefused:
		return nil, &remoteError{string(b), errRefused}
	case statusCopy:
		return nil, &remoteError{string(b), roster.ErrCopy}
	case statusAnnounce:
		return nil, &remoteError{string(b), errUnannounced}
	case statusSealed:
		return nil, &remoteError{string(b), trust.ErrSealed}
	}
	return nil, &remoteError{string(b), errNotDone}
}

// call asks over the connection, which changes nothing. If this host is not announced any more,
// because the other side has started anew, it announces itself on another connection, once; and
// if the connection ended, it asks again on another.
func (l *link) call(ctx context.Context, op uint16, body []byte) ([]byte, error) {
	for again := false; ; again = true {
		c, err := l.get(ctx)
		if err != nil {
			return nil, fmt.Errorf("records of the cluster: %w", err)
		}
		b, err := ask(ctx, c, op, l.of.mark.Append(nil), body)
		if errors.Is(err, errUnannounced) {
			_ = c.Close()
		}
		if again || err == nil || !errors.Is(err, errUnannounced) && !errors.Is(err, wire.ErrNotSent) && c.Err() == nil || ctx.Err() != nil {
			return b, err
		}
	}
}

// Get implements trust.Store.
func (l *link) Get(ctx context.Context, key []byte) ([]byte, error) {
	b, err := l.call(ctx, opGet, key)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 || b[0] > 1 {
		return nil, errPairs
	}
	if b[0] == 0 {
		return nil, nil
	}
	return b[1:], nil
}

// Range implements trust.Store.
func (l *link) Range(ctx context.Context, prefix []byte, fn func(key, value []byte) bool) error {
	b, err := l.call(ctx, opRange, prefix)
	if err != nil {
		return err
	}
	return pairs(b, fn)
}

var errReads = errors.New("this host writes no records")

// Swap implements trust.Store: it is refused.
func (l *link) Swap(context.Context, []keyswap.Swap) (bool, error) { return false, errReads }

// renew asks for another certificate, of one host after the other until one signs it. It is
// not passed on: who this host is, its connection says.
func (l *link) renew(ctx context.Context, q *trust.RenewRequest) (answer *trust.Answer, err error) {
	c, err := l.each(ctx, trust.ProtocolJoin, l.of.book.everybody(l.of.id, l.of.o.Holders()), func(ctx context.Context, c *wire.Conn) error {
		b, err := ask(ctx, c, opRenew, nil, q.Encode())
		if err == nil {
			answer, err = trust.DecodeAnswer(b)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer, c.Close()
}

// learn reads where the hosts are, and keeps it for the next start. It waits for the first
// host until it is time to look again, at most.
func (l *link) learn(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, learnEvery)
	defer cancel()
	all, err := roster.List(ctx, reads{l.of}, l.of.faults.tell)
	if err == nil && !l.up() {
		err = l.registers(ctx)
	}
	if err == nil && len(all) > 0 {
		for _, h := range all {
			l.of.marks.see(h.ID, h.Mark)
		}
		err = l.of.book.set(l.of, all)
	}
	if err != nil && l.of.ctx.Err() == nil {
		l.of.faults.tell(err)
	}
}

// up reports whether this host is connected to one that holds the config group.
func (l *link) up() bool {
	c := l.conn.Load()
	return c != nil && c.Err() == nil
}

// registers puts the record of this host where it holds the config group itself, as nobody
// else can be told: it may be all that is left of a cluster.
func (l *link) registers(ctx context.Context) error {
	store := l.of.records()
	if store == nil {
		return nil
	}
	r := l.of.record()
	r.Config = true
	err := roster.Register(ctx, store, r, l.of.history)
	if errors.Is(err, roster.ErrCopy) {
		l.of.fail(err)
	}
	return err
}

func (l *link) close() {
	if c := l.conn.Load(); c != nil {
		_ = c.Close()
	}
}
