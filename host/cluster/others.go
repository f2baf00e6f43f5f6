package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"openvstorage/host/roster"
	"openvstorage/internal/keyswap"
	"openvstorage/internal/wire"
	"openvstorage/trust"
)

// asking is a host that asks all others.
type asking struct{ *Host }

func asks(h *Host) asking { return asking{h} }

// reads is the store of records of a host that has joined: by the connection to a host that
// holds the config group, and without one by this host's own member of that, if it has one. One
// that has lost the role arakoon, and does not know it yet, is refused by the others of the
// group: then it goes by the connection, which any host may have.
type reads struct{ of *Host }

var _ trust.Store = reads{}

func (r reads) store() trust.Store {
	if s := r.of.records(); s != nil && !r.of.link.up() {
		return s
	}
	return r.of.link
}

// Get implements trust.Store.
func (r reads) Get(ctx context.Context, key []byte) ([]byte, error) {
	b, err := r.store().Get(ctx, key)
	if errors.Is(err, wire.ErrDenied) {
		return r.of.link.Get(ctx, key)
	}
	return b, err
}

// Range implements trust.Store.
func (r reads) Range(ctx context.Context, prefix []byte, fn func(key, value []byte) bool) error {
	begun := false
	err := r.store().Range(ctx, prefix, func(key, value []byte) bool {
		begun = true
		return fn(key, value)
	})
	if !begun && errors.Is(err, wire.ErrDenied) {
		return r.of.link.Range(ctx, prefix, fn)
	}
	return err
}

// Swap implements trust.Store: it is refused.
func (r reads) Swap(context.Context, []keyswap.Swap) (bool, error) { return false, errReads }

// passTime bounds how long a join is passed on, to all hosts together. It is less than a
// joiner waits.
const passTime = 40 * time.Second

// passOn answers a join that this host cannot sign with what another host says of it. The
// token's secret goes to hosts of the cluster alone, which may all see it: whoever holds the
// config group has its hash, and signs.
func (h asking) passOn(ctx context.Context, in *wire.Incoming) wire.Answer {
	ctx, cancel := context.WithTimeout(ctx, passTime)
	defer cancel()
	q, err := h.joinRequest(ctx, in)
	if err == nil {
		err = h.mayBeToken(ctx, q.Secret)
	}
	if err != nil {
		h.refused(fmt.Errorf("%s: %w", in.Peer.Addr, err))
		return failure(statusOf(err), err)
	}
	status, words := uint16(statusSealed), "no host that answers signs certificates: `ovs ca open` on one"
	errs := []error{fmt.Errorf("host %s: %w", h.id, trust.ErrSealed)}
	for _, t := range h.book.everybody(h.id, h.o.Holders()) {
		answer, err := h.passTo(ctx, t, in.Body)
		if err == nil {
			return answer
		}
		errs = append(errs, fmt.Errorf("%s: %w", t.address, err))
		if errors.Is(err, errNotDone) || errors.Is(err, wire.ErrBusy) || errors.Is(err, wire.ErrOutcomeUnknown) {
			status, words = statusFailed, "a host that was asked could not sign it now: try again"
		}
		if ctx.Err() != nil {
			break
		}
	}
	return failure(status, fmt.Errorf("%s: %w", words, errors.Join(errs...)))
}

// mayBeToken refuses a secret that is on no record, so that whoever guesses makes one host
// work, and not all. If the records cannot be read here, another host may know.
func (h asking) mayBeToken(ctx context.Context, s trust.Secret) error {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	err := Management{h.Host}.reader().HasToken(ctx, s)
	if errors.Is(err, trust.ErrToken) {
		return err
	}
	return nil
}

// passTo passes a join on to one host. There is an error if that one has not looked at it.
func (h asking) passTo(ctx context.Context, t target, body []byte) (wire.Answer, error) {
	c, err := h.others.dial(ctx, trust.ProtocolJoin, t)
	if err != nil {
		return wire.Answer{}, err
	}
	defer c.Close()
	b, err := ask(ctx, c, opJoin, []byte{1}, body)
	var said *remoteError
	switch {
	case err == nil:
		if err := h.cache.Refresh(ctx); err != nil { // its certificate is known before it is shown
			h.faults.tell(err)
		}
		return result(b), nil
	case errors.Is(err, errRefused) && errors.As(err, &said):
		return failure(statusRefused, fmt.Errorf("host at %s: %w", t.address, said)), nil
	}
	return wire.Answer{}, err
}

// saySigns answers whether this host signs certificates.
func (h *Host) saySigns(in *wire.Incoming) wire.Answer {
	if err := h.Allow(in.Peer, "status", trust.Nothing); err != nil {
		return failure(statusRefused, err)
	}
	if h.canSign() {
		return result([]byte{1})
	}
	return result([]byte{0})
}

// seen is what a host says when it is asked whether it is there.
type seen struct{ there, signs bool }

const (
	surveyTime = 2 * time.Second // that one host may take to say that it is there
	surveyMost = 32              // that are asked at the same time
)

// survey asks hosts whether they are there, and whether they sign certificates.
func (h asking) survey(ctx context.Context, hosts []roster.Host) map[uuid.UUID]seen {
	all := map[uuid.UUID]seen{h.id: {true, h.canSign()}}
	var mu sync.Mutex
	var asked sync.WaitGroup
	places := make(chan struct{}, surveyMost)
	for _, r := range hosts {
		if r.ID == h.id || len(r.Addresses) == 0 {
			continue
		}
		asked.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			s := h.look(ctx, target{r.ID, r.Addresses[0]})
			mu.Lock()
			defer mu.Unlock()
			all[r.ID] = s
		})
	}
	asked.Wait()
	return all
}

func (h asking) look(ctx context.Context, t target) (s seen) {
	ctx, cancel := context.WithTimeout(ctx, surveyTime)
	defer cancel()
	c, err := h.others.dial(ctx, ServiceHosts, t)
	if err != nil {
		return s
	}
	defer c.Close()
	b, err := ask(ctx, c, opSigns, nil, nil)
	var said *remoteError
	s.there = err == nil || errors.As(err, &said) || errors.Is(err, wire.ErrUnknownOp) // a release that does not know the question is there too
	s.signs = err == nil && len(b) == 1 && b[0] == 1
	return s
}
