package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"

	"openvstorage/host/roster"
	"openvstorage/internal/generation"
	"openvstorage/internal/wire"
	"openvstorage/trust"
)

// ServiceHosts is the service by which a host announces itself and reads records.
const ServiceHosts = "ovs-driver"

// Operations. Numbers never change; those of one service may be used by others from
// 64 on.
const (
	// Of trust.ProtocolJoin. The body is a message of package trust, and so is the answer.
	opJoin  = 1
	opRenew = 2

	// Of ServiceHosts. The header of each is the 16 bytes of the mark of the caller's start
	// (package generation).
	opAnnounce = 1 // body: an announcement of package roster; no answer
	opGet      = 2 // body: a key; answer: 1 and the value, or 0
	opRange    = 3 // body: a prefix; answer: each key, its length u16 before it, and its value, its length u32 before it
)

// Statuses of answers that are no results. Their body is the text of an error.
const (
	statusRefused  = wire.StatusService     // it is refused, and trying again does not help
	statusFailed   = wire.StatusService + 1 // it was not done, or may have been; try again
	statusCopy     = wire.StatusService + 2 // the caller's data directory is a copy
	statusAnnounce = wire.StatusService + 3 // the caller has to announce itself first
)

// group is the name of the config group, of which calls about records are.
const group = "registry"

func failure(status uint16, err error) wire.Answer {
	text := err.Error()
	return wire.Answer{Status: status, Body: wire.Wrap(nil, []byte(text[:min(len(text), 4096)])), Sum: true}
}

func result(b []byte) wire.Answer {
	return wire.Answer{Body: wire.Wrap(nil, b), Sum: true}
}

// listen begins to answer on all addresses.
func (h *Host) listen() (err error) {
	services := map[string]*wire.Service{
		trust.ProtocolJoin: {Handler: wire.HandlerFunc(h.serveJoin)},
		ServiceHosts:       {Handler: wire.HandlerFunc(h.serveHosts), Admit: h.Admit},
	}
	for name, s := range h.o.Services {
		if services[name] != nil {
			return fmt.Errorf("service %q is offered twice", name)
		}
		services[name] = s
	}
	options := wire.ServerOptions{
		Services: services, Identity: h.identity, Conns: h.o.Conns, Least: h.o.least,
		TLS:     h.guard.Server(slices.Collect(maps.Keys(services))...),
		Refused: func(from net.Addr, why error) { h.refused(fmt.Errorf("%s: %w", from, why)) },
	}
	if h.server, err = wire.NewServer(options); err != nil {
		return err
	}
	if h.o.Insecure {
		options.TLS, options.Services = nil, maps.Clone(services)
		delete(options.Services, trust.ProtocolJoin) // a secret is never said in plain text
		if h.plain, err = wire.NewServer(options); err != nil {
			return err
		}
	}
	for _, l := range h.o.Listeners.all {
		h.serve(l)
	}
	return nil
}

// serve answers on one address.
func (h *Host) serve(l net.Listener) {
	run := func(s *wire.Server, l net.Listener) {
		h.work.Go(func() {
			if err := s.Serve(l); err != nil && h.ctx.Err() == nil {
				h.fail(fmt.Errorf("other hosts on %s: %w", l.Addr(), err))
			}
		})
	}
	if h.plain == nil {
		run(h.server, l)
		return
	}
	d := divide(l)
	h.work.Go(d.run)
	run(h.server, d.tls)
	run(h.plain, d.plain)
}

// serveJoin answers those who have no certificate, or an old one.
func (h *Host) serveJoin(ctx context.Context, in *wire.Incoming) wire.Answer {
	if in.Op != opJoin && in.Op != opRenew {
		return wire.Answer{Status: uint16(wire.CodeUnknownOp)}
	}
	if h.registrar == nil {
		return failure(statusRefused, fmt.Errorf("host %s has no key of the authority: ask the first host of the cluster", h.id))
	}
	select {
	case h.joins <- struct{}{}:
		defer func() { <-h.joins }()
	default:
		return wire.Answer{Status: uint16(wire.CodeBusy)}
	}
	var answer *trust.Answer
	var err error
	if in.Op == opJoin {
		answer, err = h.answerJoin(ctx, in)
	} else {
		answer, err = h.answerRenewal(ctx, in)
	}
	if err != nil {
		h.refused(fmt.Errorf("%s: %w", in.Peer.Addr, err))
		return failure(statusOf(err), err)
	}
	// Its certificate is on record before it is shown.
	if err := h.cache.Refresh(ctx); err != nil {
		h.faults.tell(err)
	}
	return result(answer.Encode())
}

// statusOf says whether trying again may help.
func statusOf(err error) uint16 {
	for _, final := range []error{
		trust.ErrToken, trust.ErrInvalid, trust.ErrRefused, trust.ErrCertificate, trust.ErrAbsent, trust.ErrTooEarly, trust.ErrSealed, trust.ErrFull,
	} {
		if errors.Is(err, final) {
			return statusRefused
		}
	}
	return statusFailed
}

func (h *Host) answerJoin(ctx context.Context, in *wire.Incoming) (*trust.Answer, error) {
	q, err := trust.DecodeJoinRequest(in.Body)
	if err != nil {
		return nil, err
	}
	peer, err := h.identify(ctx, in.Peer)
	if err != nil {
		return nil, err
	}
	if err := h.guard.Allow(peer, "join/join", trust.Nothing); err != nil {
		return nil, err
	}
	answer, err := h.registrar.Join(ctx, q)
	if err == nil {
		h.o.Logger.Info("a host has joined", "host", q.Host, "names", q.Names, "from", in.Peer.Addr)
	}
	return answer, err
}

func (h *Host) answerRenewal(ctx context.Context, in *wire.Incoming) (*trust.Answer, error) {
	q, err := trust.DecodeRenewRequest(in.Body)
	if err != nil {
		return nil, err
	}
	peer, err := h.identify(ctx, in.Peer)
	if err != nil {
		return nil, err
	}
	if err := h.guard.Allow(peer, "join/renew", trust.Nothing); err != nil {
		return nil, err
	}
	return h.registrar.Renew(ctx, peer, q)
}

// serveHosts answers hosts.
func (h *Host) serveHosts(ctx context.Context, in *wire.Incoming) wire.Answer {
	if in.Op < opAnnounce || in.Op > opRange {
		return wire.Answer{Status: uint16(wire.CodeUnknownOp)}
	}
	if h.records() == nil {
		return failure(statusRefused, fmt.Errorf("host %s holds no member of the config group", h.id))
	}
	mark, err := generation.Decode(in.Header)
	if err != nil {
		return failure(statusRefused, err)
	}
	if in.Op == opAnnounce {
		return h.announced(ctx, in)
	}
	if h.marks.of(in.Peer.Host) != mark {
		return failure(statusAnnounce, fmt.Errorf("host %s has not announced %s", in.Peer.Host, mark))
	}
	return h.read(ctx, in)
}

// announced answers an announcement. First it is durable on record that this start is the
// newest of its host; only then do its calls pass, and connections of older ones end.
func (h *Host) announced(ctx context.Context, in *wire.Incoming) wire.Answer {
	r, history, err := roster.DecodeAnnouncement(in.Body)
	if err != nil {
		return failure(statusRefused, err)
	}
	if r.ID != in.Peer.Host {
		return failure(statusRefused, fmt.Errorf("host %s announces host %s", in.Peer.Host, r.ID))
	}
	// A host that proves nothing writes no record of where it is.
	if err := h.Allow(in.Peer, "host/address", trust.OnHost(r.ID)); err != nil {
		return failure(statusRefused, err)
	}
	// It is known here who holds members.
	r.Config = slices.ContainsFunc(h.o.Holders(), func(p Place) bool { return p.Host == r.ID })
	switch err := roster.Register(ctx, h.records(), r, history); {
	case errors.Is(err, roster.ErrCopy):
		h.refused(err)
		return failure(statusCopy, err)
	case err != nil:
		return failure(statusFailed, err)
	}
	h.marks.see(r.ID, r.Mark)
	h.server.Disconnect(func(p *wire.Peer) bool { return p.Host == r.ID && p.Generation < r.Mark.Number }, roster.ErrCopy)
	return result(nil)
}

// read answers what reads records: which, the table of package trust says.
func (h *Host) read(ctx context.Context, in *wire.Incoming) wire.Answer {
	key := append([]byte{}, in.Body...)
	to := append(append([]byte{}, key...), 0)
	if in.Op == opRange {
		to = end(key)
	}
	call := trust.KeyCall(false, key, to)
	if err := h.Allow(in.Peer, call, trust.Group(group)); err != nil {
		return failure(statusRefused, err)
	}
	if call == "trust/key" { // members have it in their state, and get it as members
		return failure(statusRefused, fmt.Errorf("the keys %q have the authority's sealed key among them, which this service shows nobody", key))
	}
	if in.Op == opGet {
		value, err := h.records().Get(ctx, key)
		switch {
		case err != nil:
			return failure(statusFailed, err)
		case value == nil:
			return result([]byte{0})
		}
		return result(append([]byte{1}, value...))
	}
	var b []byte
	whole := true
	err := h.records().Range(ctx, key, func(k, v []byte) bool {
		if whole = len(b)+6+len(k)+len(v) <= wire.BodyMax; whole {
			b = appendPair(b, k, v)
		}
		return whole
	})
	if err == nil && !whole {
		err = fmt.Errorf("the keys below %q have more than %d bytes", key, wire.BodyMax)
	}
	if err != nil {
		return failure(statusFailed, err)
	}
	return result(b)
}

// end is the first key behind all that begin with a prefix, nil if there is none.
func end(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			return append(append([]byte{}, prefix[:i]...), prefix[i]+1)
		}
	}
	return nil
}

func appendPair(b, k, v []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(len(k)))
	b = append(b, k...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
	return append(b, v...)
}

var errPairs = errors.New("the keys that were answered are cut off")

// pairs calls fn with what appendPair wrote, until it returns false.
func pairs(b []byte, fn func(k, v []byte) bool) error {
	for len(b) > 0 {
		if len(b) < 2 {
			return errPairs
		}
		n := int(binary.LittleEndian.Uint16(b))
		b = b[2:]
		if len(b) < n+4 {
			return errPairs
		}
		k := b[:n:n]
		m := int(binary.LittleEndian.Uint32(b[n:]))
		b = b[n+4:]
		if m < 0 || len(b) < m {
			return errPairs
		}
		if !fn(k, b[:m:m]) {
			return nil
		}
		b = b[m:]
	}
	return nil
}
