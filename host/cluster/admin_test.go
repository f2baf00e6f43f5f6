package cluster_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"path"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"openvstorage/host/cluster"
	"openvstorage/internal/control"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/trust"
	"openvstorage/trust/trusttest"
)

// passphrase is the one that a host keeps.
func passphrase(t *testing.T, m *machine) []byte {
	t.Helper()
	b, err := disk.ReadWhole(m.fs, path.Join(m.dir.Path, "trust/passphrase"), 1024)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// writer is a host that has joined and changes records.
func writer(t *testing.T, of *cluster.Host, store trust.Store) (*cluster.Host, *machine) {
	t.Helper()
	m := newMachine(t)
	m.records = store
	return joinAs(t, of, m), m
}

// await waits until something holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// hold has a host answer for records, as one with a member of the config group does.
func hold(store trust.Store, hosts ...*cluster.Host) {
	for _, h := range hosts {
		h.Hold(store)
	}
}

// Another host that has the passphrase signs: without the first one a host joins and others renew, and it
// signs after its next start too. Whoever lacks the passphrase passes a join on.
func TestAnotherHostSigns(t *testing.T) {
	one, first, store := first(t)
	two, m := writer(t, one, store)
	three, _ := writer(t, one, store)
	hold(store, two, three)
	says(t, "signing without the key", issue(t, two), control.ErrInvalid, one.ID().String())
	says(t, "a wrong passphrase", manage(two).OpenKey(t.Context(), []byte("correct horse battery"), true), control.ErrInvalid, "passphrase")
	if err := manage(two).OpenKey(t.Context(), passphrase(t, first), true); err != nil {
		t.Fatal(err)
	}
	closeHost(t, two)
	two, err := cluster.Resume(t.Context(), m.options(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	hold(store, two)
	serve(t, two)
	await(t, "it signs after its start", func() bool { return two.Self().Signs })
	three.Learn(t.Context())
	closeHost(t, one)
	three.Learn(t.Context())

	// A token that names a host which signs nothing alone.
	made, err := manage(three).MakeToken(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	line, err := trust.ParseToken(made.Line)
	if err != nil || !slices.Equal(line.Addresses, []string{two.Self().Address, three.Self().Address}) {
		t.Errorf("the token names %v, %v", line.Addresses, err)
	}
	line.Addresses = line.Addresses[1:]
	guessed := *line
	guessed.Secret[0] ^= 1
	_, err = cluster.Resume(t.Context(), newMachine(t).options(t, guessed.Line()))
	says(t, "a wrong secret that is passed on", err, nil, "not known here")
	four, err := cluster.Resume(t.Context(), newMachine(t).options(t, line.Line()))
	if err != nil {
		t.Fatalf("a join that is passed on: %v", err)
	}
	closeHost(t, four)
	if err := manage(two).Revoke(t.Context(), "", three.ID().String()[:13], "test"); err != nil {
		t.Errorf("by a host that is not the first: %v", err)
	}
	if _, err := manage(two).RemoveHost(t.Context(), one.ID().String(), false); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("the first host is removed as others are: %v", err)
	}
	if h, err := manage(two).RemoveHost(t.Context(), one.ID().String(), true); err != nil || h.State != "removed" {
		t.Errorf("the first host is lost: %+v, %v", h, err)
	}
}

// While no host signs, hosts that could pass a join on to each other say what is to be done, and the token is
// good later.
func TestNobodySigns(t *testing.T) {
	one, first, store := first(t)
	two, _ := writer(t, one, store)
	three, _ := writer(t, one, store)
	hold(store, two, three)
	two.Learn(t.Context())
	three.Learn(t.Context())
	line, err := trust.ParseToken(token(t, one))
	if err != nil {
		t.Fatal(err)
	}
	line.Addresses = []string{two.Self().Address, three.Self().Address}
	keep := passphrase(t, first)
	closeHost(t, one)
	m := newMachine(t)
	_, err = cluster.Resume(t.Context(), m.options(t, line.Line()))
	says(t, "a join", err, nil, "ovs ca open")
	guessed := *line
	guessed.Secret[0] ^= 1
	_, wrong := cluster.Resume(t.Context(), newMachine(t).options(t, guessed.Line()))
	says(t, "a wrong secret, which is not passed on", wrong, nil, "not known here")
	if n := strings.Count(err.Error(), "no host that answers signs"); n != 2 { // each of two addresses says so once
		t.Errorf("a join is passed on again, %d times: %v", n, err)
	}
	_, err = manage(two).MakeToken(t.Context(), "")
	says(t, "a token", err, trust.ErrSealed, "ovs ca open")
	if err := manage(three).OpenKey(t.Context(), keep, false); err != nil {
		t.Fatal(err)
	}
	joinWith(t, m, line.Line())
}

func joinWith(t *testing.T, m *machine, line string) {
	t.Helper()
	h, err := cluster.Resume(t.Context(), m.options(t, line))
	if err != nil {
		t.Fatal(err)
	}
	closeHost(t, h)
}

func issue(t *testing.T, h *cluster.Host) error {
	t.Helper()
	key, err := trust.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := trust.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = manage(h).Issue(t.Context(), control.IssueRequest{Name: "eve", Role: "nbd", Days: 1, Request: request})
	return err
}

// A host whose roles were changed gets a certificate with them from whoever signs, and one that has lost the
// role arakoon signs no more, and changes nothing.
func TestRoles(t *testing.T) {
	one, first, store := first(t)
	two, _ := writer(t, one, store)
	three, _ := writer(t, one, store)
	if err := manage(two).OpenKey(t.Context(), passphrase(t, first), false); err != nil {
		t.Fatal(err)
	}
	_, err := manage(one).SetRoles(t.Context(), one.ID().String(), "arakoon,driver")
	says(t, "a first host without disks", err, control.ErrInvalid, "proxy,asd,maintenance")
	if _, err = manage(one).SetRoles(t.Context(), three.ID().String(), "asd"); err != nil {
		t.Fatal(err)
	}
	three.Learn(t.Context())
	if err := three.Renew(t.Context()); err != nil || three.Self().Roles != "asd" {
		t.Errorf("%s, %v", three.Self().Roles, err)
	}
	if err := three.Obey(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = manage(three).MakeToken(t.Context(), "")
	says(t, "a change by a host without the role", err, control.ErrInvalid, "role arakoon")
	says(t, "a key for a host without the role", manage(three).OpenKey(t.Context(), passphrase(t, first), false), control.ErrInvalid, "role arakoon")
	if _, err = manage(one).SetRoles(t.Context(), two.ID().String(), "asd"); err != nil {
		t.Fatal(err)
	}
	if err := two.Obey(t.Context()); err != nil || two.Self().Signs {
		t.Errorf("it signs still: %v", err)
	}
	_, err = manage(one).SetRoles(t.Context(), two.ID().String(), "asd,cook")
	says(t, "a role that is none", err, control.ErrInvalid, "cook")

	m := newMachine(t)
	m.roles = trust.RoleASD
	_, err = cluster.Lead(t.Context(), m.options(t, ""), trusttest.NewStore(), m.claim(t, 1))
	says(t, "a first host of one role", err, nil, "driver,proxy,arakoon,maintenance")
	m = newMachine(t)
	m.roles = trust.RoleASD
	_, err = cluster.Resume(t.Context(), m.options(t, token(t, one)))
	says(t, "other roles than the token's", err, nil, "ovs host token --roles asd")
}

// leaving are members that leave a host, or do not.
type leaving struct {
	cluster.Members
	fail  error
	asked []uuid.UUID
}

func (l *leaving) Leave(_ context.Context, host uuid.UUID, _ bool) error {
	l.asked = append(l.asked, host)
	return l.fail
}
func (l *leaving) Mode(uuid.UUID) (bool, bool)              { return false, false }
func (l *leaving) On(uuid.UUID) []string                    { return nil }
func (l *leaving) Safety() string                           { return "" }
func (l *leaving) Undrain(context.Context, uuid.UUID) error { return nil }

// A host keeps the role arakoon while its members do not leave it.
func TestMembersLeaveBeforeTheRole(t *testing.T) {
	m, stay := newMachine(t), &leaving{fail: errors.New("they stay")}
	m.members = stay
	one := firstAt(t, m, trusttest.NewStore())
	two, _ := join(t, one)
	_, err := manage(one).SetRoles(t.Context(), two.ID().String(), "asd")
	says(t, "members that stay", err, control.ErrBusy, "they stay")
	if c, err := manage(one).ShowHost(t.Context(), two.ID().String()); err != nil || c.Roles != trust.AllRoles.String() {
		t.Errorf("%+v, %v", c, err)
	}
	stay.fail = nil
	if c, err := manage(one).SetRoles(t.Context(), two.ID().String(), "asd"); err != nil || c.Roles != "asd" || len(stay.asked) != 2 {
		t.Errorf("%+v, %v; %v", c, err, stay.asked)
	}
	if _, err := manage(one).SetRoles(t.Context(), two.ID().String(), "asd,proxy"); err != nil || len(stay.asked) != 2 {
		t.Errorf("no member is asked to leave: %v; %v", err, stay.asked)
	}
}

// Tokens are listed without their secrets, and withdrawn by their number.
func TestTokenList(t *testing.T) {
	one, _, _ := first(t)
	two, _ := join(t, one)
	line := token(t, one)
	list, err := manage(two).Tokens(t.Context())
	slices.SortFunc(list, func(a, b control.TokenInfo) int { return strings.Compare(b.State, a.State) }) // of one second
	if err != nil || len(list) != 2 || list[0].State != "used" || *list[0].UsedBy != two.ID() || list[1].State != "good" {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, id := range []string{"", list[1].ID[:3]} {
		_, err := manage(one).WithdrawToken(t.Context(), id)
		says(t, "a number that is too short", err, control.ErrInvalid, "4 digits")
	}
	_, err = manage(one).WithdrawToken(t.Context(), "0000000000000000")
	says(t, "a token that is not there", err, control.ErrNotFound, "ovs host token list")
	if id, err := manage(one).WithdrawToken(t.Context(), strings.ToUpper(list[1].ID[:8])); err != nil || id != list[1].ID {
		t.Errorf("%s, %v", id, err)
	}
	_, err = cluster.Resume(t.Context(), newMachine(t).options(t, line))
	says(t, "a token that was withdrawn", err, nil, "withdrawn")
	_, err = manage(one).WithdrawToken(t.Context(), list[0].ID)
	says(t, "a token that was used", err, control.ErrInvalid, "ovs host remove "+two.ID().String())
}

// A host that moved and is away is found where somebody says that it is, and by nobody else's address.
func TestAddress(t *testing.T) {
	one, _, _ := first(t)
	two, m := join(t, one)
	three, _ := join(t, one)
	id := two.ID().String()
	set := func(address string) error {
		_, err := manage(one).SetAddress(t.Context(), id, address)
		return err
	}
	says(t, "a host that answers", set("127.0.0.9:1"), control.ErrInvalid, "answers at")
	closeHost(t, two)
	says(t, "no address", set("127.0.0.9"), control.ErrInvalid, "HOST:PORT")
	says(t, "another's address", set(three.Self().Address), control.ErrInvalid, three.ID().String())
	if err := set("HOST.Example:1"); err != nil {
		t.Fatal(err)
	}
	if c, err := manage(one).ShowHost(t.Context(), id); err != nil || !slices.Equal(c.Addresses, []string{"host.example:1"}) {
		t.Errorf("a name in capitals: %+v, %v", c, err)
	}
	if err := set("127.0.0.9:1"); err != nil {
		t.Fatal(err)
	}
	three.Learn(t.Context())
	for _, h := range []*cluster.Host{one, three} {
		if c, err := manage(h).ShowHost(t.Context(), id); err != nil || !slices.Equal(c.Addresses, []string{"127.0.0.9:1"}) || *c.Connected {
			t.Errorf("%+v, %v", c, err)
		}
	}
	again, err := cluster.Resume(t.Context(), m.options(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	serve(t, again)
	if c, err := manage(one).ShowHost(t.Context(), id); err != nil || !slices.Equal(c.Addresses, []string{again.Self().Address}) {
		t.Errorf("it says itself where it is: %+v, %v", c, err)
	}
}

// A first host whose power is cut at any change of its disk, or that loses the answer of the records, while
// its passphrase is changed opens the key at its next start.
func TestResealIsCut(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for step := 0; ; step++ {
		for _, lost := range []bool{false, true} {
			inner, store := crashdisk.New(), trusttest.NewStore()
			m := newMachine(t)
			faults := faultdisk.New(inner)
			m.open(t, faults)
			h, err := cluster.Lead(t.Context(), m.options(t, ""), store, m.claim(t, 1))
			if err != nil {
				t.Fatal(err)
			}
			if lost {
				store.Lose = func() error { return errCut }
			}
			faults.Inject(faultdisk.Rule{Ops: mutating, Skip: step, Err: errCut})
			err = manage(h).Reseal(t.Context(), []byte("correct horse battery"))
			closeHost(t, h)
			store.Lose = nil
			m.open(t, inner.Crash(rng, crashdisk.Mixed))
			again, errAgain := cluster.Lead(t.Context(), m.options(t, ""), store, m.claim(t, 2))
			if errAgain != nil {
				t.Fatalf("cut at change %d (%v): %v", step, err, errAgain)
			}
			signs := again.Self().Signs
			closeHost(t, again)
			if !signs {
				t.Fatalf("cut at change %d, answer lost %v: %v: it signs no more", step, lost, err)
			}
			if lost || err != nil || !faultsPast(faults) {
				continue
			}
			if got := string(passphrase(t, m)); step < 4 || got != "correct horse battery\n" {
				t.Errorf("%d changes were cut; it keeps %q", step, got)
			}
			return
		}
	}
}
