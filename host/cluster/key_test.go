package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"openvstorage/host/cluster"
	"openvstorage/internal/keyswap"
	"openvstorage/internal/wire"
	"openvstorage/trust"
	"openvstorage/trust/trusttest"
)

// hooked is a store that does something else before a swap is answered, or refuses it.
type hooked struct {
	*trusttest.Store
	after  atomic.Pointer[func()]
	refuse atomic.Bool
}

func (s *hooked) Swap(ctx context.Context, swaps []keyswap.Swap) (bool, error) {
	if s.refuse.Load() {
		return false, errors.New("no majority")
	}
	done, err := s.Store.Swap(ctx, swaps)
	if fn := s.after.Swap(nil); fn != nil {
		(*fn)()
	}
	return done, err
}

// Of two who change the passphrase at the same time, one is the last: its passphrase is the
// one that is kept.
func TestTwoReseals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, m := &hooked{Store: trusttest.NewStore()}, newMachine(t)
		h, err := cluster.Lead(t.Context(), m.options(t, ""), store, m.claim(t, 1))
		if err != nil {
			t.Fatal(err)
		}
		second := make(chan error, 1)
		store.after.Store(new(func() {
			go func() { second <- manage(h).Reseal(t.Context(), []byte("the second passphrase")) }()
			synctest.Wait()
		}))
		if err := manage(h).Reseal(t.Context(), []byte("the first passphrase")); err != nil {
			t.Error(err)
		}
		if err := <-second; err != nil {
			t.Error(err)
		}
		kept := strings.TrimSpace(string(passphrase(t, m)))
		if err := manage(h).OpenKey(t.Context(), []byte(kept), false); err != nil {
			t.Errorf("the passphrase %q is kept: %v", kept, err)
		}
		closeHost(t, h)
	})
}

// Where a host that signs cannot do it now, nobody is told to open the key on another.
func TestPassedOnInVain(t *testing.T) {
	store, m := &hooked{Store: trusttest.NewStore()}, newMachine(t)
	one := firstAt(t, m, store)
	two, _ := writer(t, one, store)
	line, err := trust.ParseToken(token(t, one))
	if err != nil {
		t.Fatal(err)
	}
	line.Addresses = []string{two.Self().Address}
	store.refuse.Store(true)
	joins := newMachine(t)
	_, err = cluster.Resume(t.Context(), joins.options(t, line.Line()))
	says(t, "a join", err, nil, "try again")
	if strings.Contains(err.Error(), "ovs ca open") {
		t.Error(err)
	}
	store.refuse.Store(false)
	joinWith(t, joins, line.Line())
}

// A host of the release before is there, though it does not know what it is asked.
func TestReleaseBeforeIsThere(t *testing.T) {
	one, _, _ := first(t)
	two, m := join(t, one)
	closeHost(t, two)
	two, err := cluster.Resume(t.Context(), m.options(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	s, err := two.ServeAsBefore()
	if err != nil {
		t.Fatal(err)
	}
	c, err := manage(one).ShowHost(t.Context(), two.ID().String())
	if err != nil || !*c.Connected || c.Signs {
		t.Errorf("connected %v, signs %v, %v", *c.Connected, c.Signs, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = s.Close(ctx)
	closeHost(t, two)
}

// A host that gets the role arakoon back signs again, by the passphrase that it keeps.
func TestRoleThatComesBack(t *testing.T) {
	one, first, store := first(t)
	two, _ := writer(t, one, store)
	hold(store, two)
	if err := manage(two).OpenKey(t.Context(), passphrase(t, first), true); err != nil {
		t.Fatal(err)
	}
	for _, roles := range []string{"asd", "asd,arakoon"} {
		if _, err := manage(one).SetRoles(t.Context(), two.ID().String(), roles); err != nil {
			t.Fatal(err)
		}
		if err := two.Obey(t.Context()); err != nil {
			t.Fatal(err)
		}
		await(t, "it signs as its roles say: "+roles, func() bool { return two.Self().Signs == (roles != "asd") })
	}
}

// A host that the members of the config group refuse, as it has lost the role arakoon, learns
// that from any host.
func TestRefusedByTheGroup(t *testing.T) {
	one, _, store := first(t)
	two, _ := writer(t, one, store)
	refuses := trusttest.NewStore()
	refuses.Fail = func(string) error { return fmt.Errorf("every member refuses: %w", wire.ErrDenied) }
	hold(refuses, two)
	ended := two.LinkDone()
	if _, err := manage(one).SetRoles(t.Context(), two.ID().String(), "asd"); err != nil {
		t.Fatal(err)
	}
	<-ended
	if err := two.Obey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r, known := two.Knows(two.ID()); !known || r.Roles != trust.RoleASD {
		t.Errorf("it has the roles %s", r.Roles)
	}
}
