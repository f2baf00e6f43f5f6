package cluster_test

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"openvstorage/host/cluster"
	"openvstorage/host/roster"
	"openvstorage/internal/control"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/trust"
	"openvstorage/trust/trusttest"
)

func says(t *testing.T, what string, err error, target error, word string) {
	t.Helper()
	if err == nil || target != nil && !errors.Is(err, target) || !strings.Contains(err.Error(), word) {
		t.Errorf("%s: %v; it is to say %q", what, err, word)
	}
}

// A host joins with a token, both list both, and both start again as what they are.
func TestJoin(t *testing.T) {
	one, _, _ := first(t)
	two, m := join(t, one)
	for _, h := range []*cluster.Host{one, two} {
		list, err := manage(h).Hosts(t.Context())
		if err != nil || len(list) != 2 || len(list[0].Addresses) != 1 || list[1].Zone != "z" {
			t.Errorf("%+v, %v", list, err)
		}
	}
	if s := two.Self(); s.First || !s.Linked || s.Cluster != one.Cluster() || one.Cluster() != one.ID() {
		t.Errorf("%+v", s)
	}
	closeHost(t, two)
	again, err := cluster.Resume(t.Context(), m.options(t, "")) // without a token
	if err != nil {
		t.Fatal(err)
	}
	serve(t, again)
	if again.ID() != two.ID() || !again.Self().Linked {
		t.Errorf("%+v", again.Self())
	}
	// Which host is the first it learns from that one, a moment after its start.
	for end := time.Now().Add(time.Minute); ; {
		_, err := manage(again).MakeToken(t.Context(), "")
		if errors.Is(err, control.ErrInvalid) && strings.Contains(err.Error(), one.ID().String()) {
			return
		}
		if !errors.Is(err, control.ErrInvalid) || time.Now().After(end) {
			t.Fatalf("it signs nothing, and is to say who does: %v", err)
		}
		runtime.Gosched()
	}
}

// While the first host is away, one that has joined starts and lists by what it has seen.
func TestFirstHostIsAway(t *testing.T) {
	one, _, _ := first(t)
	two, m := join(t, one)
	closeHost(t, two)
	closeHost(t, one)
	again, err := cluster.Resume(t.Context(), m.options(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer closeHost(t, again)
	if list, err := manage(again).Hosts(t.Context()); err != nil || len(list) != 2 || again.Self().Linked {
		t.Errorf("%+v, %v", list, err)
	}
}

// What keeps a host from joining is said by name, and changes nothing that was there.
func TestJoinIsRefused(t *testing.T) {
	one, _, _ := first(t)
	line := token(t, one)
	good, err := trust.ParseToken(line)
	if err != nil {
		t.Fatal(err)
	}
	try := func(m *machine, line string) error {
		_, err := cluster.Resume(t.Context(), m.options(t, line))
		return err
	}
	wrong := *good
	wrong.Authority[0] ^= 1
	fresh := newMachine(t)
	says(t, "a wrong fingerprint", try(fresh, wrong.Line()), trust.ErrOtherCA, "fingerprint")
	if cluster.HasJoined(fresh.dir) {
		t.Error("the directory belongs to a cluster that it has not found")
	}
	secret := *good
	secret.Secret[0] ^= 1
	says(t, "a wrong secret", try(newMachine(t), secret.Line()), nil, "not known here")
	own := newMachine(t)
	own.claim(t, 1)
	says(t, "a machine of its own", try(own, line), cluster.ErrOwn, "groups")
	says(t, "no token", try(newMachine(t), ""), nil, "ovs host token")
	if err := try(newMachine(t), line); err != nil {
		t.Fatalf("a good one: %v", err)
	}
	says(t, "a second use", try(newMachine(t), line), nil, "is good for one")
	other, _, _ := first(t)
	_, joined := join(t, one)
	says(t, "a directory of another cluster", try(joined, token(t, other)), cluster.ErrOther, one.Cluster().String())
}

// A token that has expired joins nobody.
func TestExpiredToken(t *testing.T) {
	m, store, now := newMachine(t), trusttest.NewStore(), time.Now()
	m.now = func() time.Time { return now }
	one, err := cluster.Lead(t.Context(), m.options(t, ""), store, m.claim(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	line := token(t, one)
	closeHost(t, one)
	now = now.Add(trust.TokenLife + time.Second)
	if one, err = cluster.Lead(t.Context(), m.options(t, ""), store, m.claim(t, 2)); err != nil {
		t.Fatal(err)
	}
	serve(t, one)
	// The address has changed with the restart: the token is made for it anew.
	old, err := trust.ParseToken(line)
	if err != nil {
		t.Fatal(err)
	}
	old.Addresses = []string{one.Self().Address}
	_, err = cluster.Resume(t.Context(), newMachine(t).options(t, old.Line()))
	says(t, "an expired token", err, nil, "expired")
}

// mutating is what changes a disk.
const mutating = faultdisk.Open | faultdisk.Write | faultdisk.Sync | faultdisk.Rename | faultdisk.Remove | faultdisk.SyncDir | faultdisk.Mkdir

var errCut = errors.New("the power is cut")

// A joiner whose power is cut at any change of its disk joins with the same token at the
// next start, and is on record once.
func TestJoinerIsCut(t *testing.T) {
	one, _, store := first(t)
	rng := rand.New(rand.NewPCG(1, 2))
	steps := 0
	for ; steps < 200; steps++ {
		line := token(t, one)
		inner := crashdisk.New()
		m := newMachine(t)
		m.open(t, inner)
		faults := faultdisk.New(inner)
		if err := m.dir.Close(); err != nil {
			t.Fatal(err)
		}
		m.open(t, faults)
		faults.Inject(faultdisk.Rule{Ops: mutating, Skip: steps, Err: errCut})
		h, err := cluster.Resume(t.Context(), m.options(t, line))
		if err == nil {
			closeHost(t, h)
		}
		id := m.dir.ID
		m.open(t, inner.Crash(rng, crashdisk.Mixed))
		again, errAgain := cluster.Resume(t.Context(), m.options(t, line))
		if errAgain != nil {
			t.Fatalf("cut at change %d (%v): %v", steps, err, errAgain)
		}
		closeHost(t, again)
		if again.ID() != id || again.Cluster() != one.Cluster() {
			t.Fatalf("cut at change %d: it is host %s of %s", steps, again.ID(), again.Cluster())
		}
		withdraw(t, store)
		if err == nil && faultsPast(faults) {
			break
		}
	}
	if steps < 10 || steps == 200 {
		t.Errorf("%d changes were cut", steps)
	}
}

// faultsPast reports whether the rule that was injected has not fired yet.
func faultsPast(f *faultdisk.FS) bool {
	_, err := f.OpenFile("/probe", 0, 0)
	return !errors.Is(err, errCut)
}

// A first host whose power is cut at any change of its own files starts again, with the
// authority that it has made, if it has made one.
func TestFirstHostIsCut(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for step := 0; ; step++ {
		inner, store := crashdisk.New(), trusttest.NewStore()
		m := &machine{address: newAddress(), now: time.Now, log: newMachine(t).log}
		faults := faultdisk.New(inner)
		m.open(t, faults)
		mark := m.claim(t, 1)
		faults.Inject(faultdisk.Rule{Ops: faultdisk.Rename | faultdisk.SyncDir, Skip: step, Err: errCut})
		h, err := cluster.Lead(t.Context(), m.options(t, ""), store, mark)
		if err == nil {
			closeHost(t, h)
		}
		authority, _ := trust.NewRegistrar(trust.RegistrarOptions{Store: store}).Authority(t.Context())
		m.open(t, inner.Crash(rng, crashdisk.Mixed))
		again, errAgain := cluster.Lead(t.Context(), m.options(t, ""), store, m.claim(t, 2))
		if errAgain != nil {
			t.Fatalf("cut at change %d (%v): %v", step, err, errAgain)
		}
		self := again.Self()
		after, _ := manage(again).Authority(t.Context())
		closeHost(t, again)
		if self.Sealed || authority != nil && trust.FingerprintOf(authority).String() != after.Fingerprint {
			t.Fatalf("cut at change %d: sealed %v, another authority", step, self.Sealed)
		}
		if err == nil && faultsPast2(faults) {
			if step < 5 {
				t.Errorf("%d changes were cut", step)
			}
			return
		}
	}
}

// faultsPast2 reports whether syncs of a directory go through.
func faultsPast2(f *faultdisk.FS) bool { return !errors.Is(f.SyncDir("/d"), errCut) }

// Records that are gone are no reason to make an authority anew.
func TestMissingRecords(t *testing.T) {
	m, store := newMachine(t), trusttest.NewStore()
	one, err := cluster.Lead(t.Context(), m.options(t, ""), store, m.claim(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	closeHost(t, one)
	lost := trusttest.NewStore()
	_, err = cluster.Lead(t.Context(), m.options(t, ""), lost, m.claim(t, 2))
	says(t, "records that are gone", err, cluster.ErrMissing, "nothing was changed")
	if lost.Len() != 0 {
		t.Error("something was made in their place")
	}
}

// Of two copies of a directory that are started, the second is refused by name.
func TestCopyOfAHost(t *testing.T) {
	one, _, _ := first(t)
	inner := crashdisk.New()
	m := newMachine(t)
	m.open(t, inner)
	two, err := cluster.Resume(t.Context(), m.options(t, token(t, one)))
	if err != nil {
		t.Fatal(err)
	}
	copied := inner.Kill()
	closeHost(t, two)
	m.open(t, inner.Kill())
	if two, err = cluster.Resume(t.Context(), m.options(t, "")); err != nil {
		t.Fatal(err)
	}
	serve(t, two)
	for range 3 { // each counts a start of its own
		m.open(t, copied)
		_, err = cluster.Resume(t.Context(), m.options(t, ""))
		says(t, "a copy", err, roster.ErrCopy, two.ID().String())
		if err := m.dir.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A host that was removed, whose certificates were revoked, or that has lost a role, loses its
// connection: what it may was asked when that was made.
func TestRemovedHostLosesItsConnection(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, one *cluster.Host, host string) error{
		"removed": func(t *testing.T, one *cluster.Host, host string) error {
			_, err := manage(one).RemoveHost(t.Context(), host, false)
			return err
		},
		"revoked": func(t *testing.T, one *cluster.Host, host string) error {
			return manage(one).Revoke(t.Context(), "", host, "test")
		},
		"of a role less": func(t *testing.T, one *cluster.Host, host string) error {
			_, err := manage(one).SetRoles(t.Context(), host, "asd")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			one, _, _ := first(t)
			two, _ := join(t, one)
			ended := two.LinkDone()
			if err := end(t, one, two.ID().String()); err != nil {
				t.Fatal(err)
			}
			<-ended
			if name == "of a role less" {
				two.Learn(t.Context()) // by another connection, which goes on
				one.Obey(t.Context())
				if !two.Self().Linked {
					t.Error("with the roles that it has it is refused")
				}
				return
			}
			if list, err := manage(two).Hosts(t.Context()); err != nil || len(list) != 2 || two.Self().Linked {
				t.Errorf("it lists what it has seen: %+v, %v; linked %v", list, err, two.Self().Linked)
			}
		})
	}
}

// A host that is not connected is removed only by who says that it is lost.
func TestRemoveLost(t *testing.T) {
	one, _, _ := first(t)
	two, _ := join(t, one)
	id := two.ID().String()
	_, err := manage(one).RemoveHost(t.Context(), one.ID().String(), true)
	says(t, "the first host", err, control.ErrInvalid, "first")
	closed := two.LinkDone()
	closeHost(t, two)
	<-closed
	one.AwaitGone(two.ID())
	_, err = manage(one).RemoveHost(t.Context(), id, false)
	says(t, "one that is away", err, control.ErrBusy, "--lost")
	if h, err := manage(one).RemoveHost(t.Context(), id[:13], true); err != nil || h.State != "removed" {
		t.Errorf("%+v, %v", h, err)
	}
}
