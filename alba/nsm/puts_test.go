package nsm_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/nsm/userfn"
)

// Of several puts each is for itself: refused ones leave nothing and keep no
// other from being put, and a later one sees what an earlier one did.
func TestPutManyEachForItself(t *testing.T) {
	s, c := host(t)
	outcomes, err := c.PutMany(ctx, 1, []nsm.Put{
		{nsm.Create, 0, object("a", 1, "one", 1, 2, 3)},
		{nsm.Create, 0, object("a", 2, "two", 1, 2, 3)},
		{nsm.Create, 0, object("b", 3, "three", 1, 2, 99)},
		{nsm.Replace, 0, object("a", 4, "four", 4, 5, 0)},
		{nsm.ReplaceIf, 7, object("a", 5, "five")},
		{nsm.Create, 0, object("c", 1, "six", 7, 8, 9)},
		{nsm.CreateOrEqual, 0, object("a", 6, "four", 7, 8, 9)},
		{nsm.Mode(9), 0, object("d", 7, "seven")},
		{nsm.Create, 0, &nsm.Object{Name: "e"}},
		{nsm.Create, 0, object("f", 8, "eight")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, expected := range []error{nil, nsm.ErrExists, nsm.ErrOSD, nil, nsm.ErrConflict, nsm.ErrIDUsed, nil, nsm.ErrInvalid, nsm.ErrInvalid, nil} {
		if got := outcomes[i].Err; expected == nil && got != nil || !errors.Is(got, expected) {
			t.Errorf("put %d: %v, want %v", i, got, expected)
		}
	}
	if r := outcomes[3]; r.Version != 2 || r.Replaced == nil || r.Replaced.ID != id(1) || r.Replaced.Manifest != nil {
		t.Errorf("%+v", r)
	}
	if r := outcomes[6]; r.Version != 2 || !r.Existed {
		t.Errorf("%+v", r)
	}
	check(t, s)
	list, err := c.List(ctx, 1, "", "", 10, userfn.Consistent)
	if err != nil || len(list) != 2 || list[0].ID != id(4) || list[1].Version != 3 {
		t.Fatal(list, err)
	}
}

func TestPutManyOfNoNamespace(t *testing.T) {
	s, c := host(t)
	before := string(s.Dump())
	_, err := c.PutMany(ctx, 2, []nsm.Put{{nsm.Create, 0, object("a", 1, "one")}})
	want(t, "no namespace", err, nsm.ErrNamespaceNotFound)
	_, err = c.PutMany(ctx, 1, tooMany())
	want(t, "65 puts", err, nsm.ErrInvalid)
	if string(s.Dump()) != before {
		t.Fatal("an error left something")
	}
}

func tooMany() []nsm.Put {
	puts := make([]nsm.Put, nsm.MaxPuts+1)
	for i := range puts {
		puts[i] = nsm.Put{Mode: nsm.Create, Object: object(fmt.Sprint("n", i), uint64(i+1), "x")}
	}
	return puts
}

// held is a host whose calls wait until they are let through.
type held struct {
	*nsmtest.Store
	calls chan string // a call that has come
	pass  chan error  // lets one through, or fails it after it was made
}

func (h *held) Call(ctx context.Context, name string, version uint32, arg []byte) ([]byte, error) {
	h.calls <- name
	err := <-h.pass
	result, failed := h.Store.Call(ctx, name, version, arg)
	if err != nil {
		return nil, err
	}
	return result, failed
}

func hold(t *testing.T) (*held, *nsm.Client) {
	s, _ := host(t)
	h := &held{s, make(chan string), make(chan error)}
	return h, nsm.NewClient(h, h)
}

// waiting makes a put a call of its own, which is held, and has more wait for
// the next one, in order.
func waiting(t *testing.T, h *held, c *nsm.Client, ctxs []context.Context, puts ...nsm.Put) (wait func() []error) {
	t.Helper()
	errs := make([]error, len(puts))
	var all sync.WaitGroup
	for i, p := range puts {
		all.Go(func() {
			_, errs[i] = c.Put(ctxs[i], 1, p.Mode, p.Version, p.Object)
		})
		if i == 0 {
			if name := <-h.calls; name != "nsm.put" {
				t.Fatal(name)
			}
			continue
		}
		nsm.AwaitWaiting(c, 1, i)
	}
	return func() []error { all.Wait(); return errs }
}

func always(n int) []context.Context {
	list := make([]context.Context, n)
	for i := range list {
		list[i] = ctx
	}
	return list
}

// Puts that come while one is under way go in one call behind it, and each
// gets its own answer.
func TestPutsGoTogether(t *testing.T) {
	h, c := hold(t)
	wait := waiting(t, h, c, always(5), nsm.Put{nsm.Create, 0, object("a", 1, "one", 1, 2, 3)},
		nsm.Put{nsm.Create, 0, object("b", 2, "two", 1, 2, 3)}, nsm.Put{nsm.Create, 0, object("a", 3, "three", 1, 2, 3)},
		nsm.Put{nsm.Create, 0, object("c", 4, "four", 1, 2, 99)}, nsm.Put{nsm.Create, 0, object("d", 5, "five")})
	h.pass <- nil
	if name := <-h.calls; name != "nsm.put-many" {
		t.Fatal(name)
	}
	h.pass <- nil
	for i, expected := range []error{nil, nil, nsm.ErrExists, nsm.ErrOSD, nil} {
		if got := wait()[i]; expected == nil && got != nil || !errors.Is(got, expected) {
			t.Errorf("put %d: %v, want %v", i, got, expected)
		}
	}
	check(t, h.Store)
	// And the next one waits for nobody.
	wait = waiting(t, h, c, always(1), nsm.Put{nsm.Create, 0, object("e", 6, "six")})
	h.pass <- nil
	if err := wait()[0]; err != nil {
		t.Fatal(err)
	}
}

// A put that is given up while it waits is not made, and one that is given up
// under way does not keep the others from theirs.
func TestPutsGivenUp(t *testing.T) {
	h, c := hold(t)
	ctxs := always(4)
	early, stopEarly := context.WithCancel(ctx)
	late, stopLate := context.WithCancel(ctx)
	ctxs[1], ctxs[2] = early, late
	defer stopLate()
	wait := waiting(t, h, c, ctxs, nsm.Put{nsm.Create, 0, object("a", 1, "one")}, nsm.Put{nsm.Create, 0, object("b", 2, "two")},
		nsm.Put{nsm.Create, 0, object("c", 3, "three")}, nsm.Put{nsm.Create, 0, object("d", 4, "four")})
	stopEarly()
	nsm.AwaitWaiting(c, 1, 2)
	h.pass <- nil
	<-h.calls
	stopLate()
	h.pass <- nil
	errs := wait()
	if errs[0] != nil || errs[3] != nil || !errors.Is(errs[1], context.Canceled) {
		t.Fatal(errs)
	}
	if errs[2] != nil && !errors.Is(errs[2], context.Canceled) { // it may have been answered first
		t.Fatal(errs[2])
	}
	if _, err := c.Stat(ctx, 1, "b", userfn.Consistent); !errors.Is(err, nsm.ErrNotFound) {
		t.Fatal("a put that was given up was made:", err)
	}
	if _, err := c.Stat(ctx, 1, "c", userfn.Consistent); err != nil {
		t.Fatal("a put that was under way was not made:", err)
	}
}

// If the outcome of a call is unknown, it is unknown for all of its puts.
func TestPutsFailTogether(t *testing.T) {
	h, c := hold(t)
	wait := waiting(t, h, c, always(3), nsm.Put{nsm.Create, 0, object("a", 1, "one")},
		nsm.Put{nsm.Create, 0, object("b", 2, "two")}, nsm.Put{nsm.Create, 0, object("c", 3, "three")})
	h.pass <- nil
	<-h.calls
	lost := errors.New("the line broke")
	h.pass <- lost
	if errs := wait(); errs[0] != nil || errs[1] != lost || errs[2] != lost {
		t.Fatal(errs)
	}
}

// A broken record that one put meets fails that one alone.
func TestPutsBesideABrokenRecord(t *testing.T) {
	h, c := hold(t)
	wait := waiting(t, h, c, always(1), nsm.Put{nsm.Create, 0, object("a", 1, "one", 1, 2, 3)})
	h.pass <- nil
	if err := wait()[0]; err != nil {
		t.Fatal(err)
	}
	// The OSDs count less than object a takes: it cannot be replaced.
	h.Edit(func(tx userfn.Tx) {
		for _, table := range []string{"U", "S"} {
			var keys []string
			tx.Range([]byte("nsm/"+table), []byte("nsm/"+table+"\xff"), 100, func(k, _ []byte) bool {
				keys = append(keys, string(k))
				return true
			})
			for _, k := range keys {
				tx.Delete([]byte(k))
			}
		}
	})
	wait = waiting(t, h, c, always(4), nsm.Put{nsm.Create, 0, object("b", 2, "two")}, nsm.Put{nsm.Create, 0, object("c", 3, "three")},
		nsm.Put{nsm.Replace, 0, object("a", 4, "four", 4, 5, 6)}, nsm.Put{nsm.Create, 0, object("d", 5, "five")})
	h.pass <- nil
	var names []string
	for range 4 {
		names = append(names, <-h.calls)
		h.pass <- nil
	}
	if got := strings.Join(names, " "); got != "nsm.put-many nsm.put nsm.put nsm.put" {
		t.Fatal(got)
	}
	errs := wait()
	if errs[0] != nil || errs[1] != nil || !errors.Is(errs[2], nsm.ErrCorrupt) || errs[3] != nil {
		t.Fatal(errs)
	}
}

// Puts of many at once, over namespaces and names that meet, are each made
// once.
func TestPutsAtOnce(t *testing.T) {
	s, c := host(t)
	var all sync.WaitGroup
	var mu sync.Mutex
	made := map[string]int{}
	for w := range 32 {
		all.Go(func() {
			for i := range 20 {
				name := fmt.Sprintf("n%02d", (w+i)%40)
				_, err := c.Put(ctx, 1, nsm.Create, 0, object(name, uint64(1000*w+i+1), fmt.Sprint(w, i), 1, 2, 3))
				if err != nil && !errors.Is(err, nsm.ErrExists) {
					t.Error(err)
				}
				if err == nil {
					mu.Lock()
					made[name]++
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	if len(made) != 40 {
		t.Fatalf("%d names were put", len(made))
	}
	for name, n := range made {
		if n != 1 {
			t.Fatalf("%s was created %d times", name, n)
		}
	}
	check(t, s)
}
