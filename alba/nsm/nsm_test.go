package nsm_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/nsm/userfn"
)

var ctx = context.Background()

// host is an NSM host with namespace 1 and OSDs 1 to 9, three to a node.
func host(t testing.TB) (*nsmtest.Store, *nsm.Client) {
	t.Helper()
	s := nsmtest.New(nsm.Functions()...)
	c := nsm.NewClient(s, s)
	messages := []nsm.Message{{Kind: nsm.MessageCreateNamespace, Namespace: 1}}
	for osd := uint64(1); osd <= 9; osd++ {
		messages = append(messages, nsm.Message{Kind: nsm.MessageLinkOSD, OSD: osd, Node: fmt.Sprintf("node%d", osd%3)})
	}
	if n, err := c.Deliver(ctx, 1, messages); err != nil || n != 10 {
		t.Fatal(n, err)
	}
	return s, c
}

func check(t testing.TB, s *nsmtest.Store) {
	t.Helper()
	if err := s.View(nsm.Check); err != nil {
		t.Fatal(err)
	}
}

func id(n uint64) (b [16]byte) {
	binary.LittleEndian.PutUint64(b[:], n)
	b[15] = 1
	return b
}

// object makes an object 2+1, one chunk, on the OSDs given.
func object(name string, n uint64, content string, osds ...uint64) *nsm.Object {
	o := &nsm.Object{
		Name: name, ID: id(n), Epoch: 1, Size: uint64(len(content)), Hash: sha256.Sum256([]byte(content)),
		Manifest: []byte(fmt.Sprintf("manifest of %s %d", name, n)),
	}
	if len(osds) > 0 {
		o.Policy = nsm.Policy{K: 2, M: uint8(len(osds) - 2), C: 2, X: 3}
		chunk := nsm.Chunk{Length: 4096}
		for _, osd := range osds {
			chunk.Fragments = append(chunk.Fragments, nsm.Fragment{OSD: osd})
		}
		o.Chunks = []nsm.Chunk{chunk}
	}
	return o
}

func want(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
}

func TestPutModes(t *testing.T) {
	s, c := host(t)
	r, err := c.Put(ctx, 1, nsm.Create, 0, object("a", 1, "one", 1, 2, 3))
	if err != nil || r.Version != 1 || r.Existed || r.Replaced != nil {
		t.Fatal(r, err)
	}
	// The retry of what succeeded succeeds, in every mode.
	for _, mode := range []nsm.Mode{nsm.Create, nsm.CreateOrEqual, nsm.Replace, nsm.ReplaceIf} {
		if r, err := c.Put(ctx, 1, mode, 77, object("a", 1, "one", 1, 2, 3)); err != nil || !r.Existed || r.Version != 1 {
			t.Fatal(mode, r, err)
		}
	}
	_, err = c.Put(ctx, 1, nsm.Create, 0, object("a", 2, "one", 1, 2, 3))
	want(t, "create of another", err, nsm.ErrExists)
	_, err = c.Put(ctx, 1, nsm.CreateOrEqual, 0, object("a", 2, "two", 1, 2, 3))
	want(t, "create of other bytes", err, nsm.ErrExists)
	check(t, s)

	// Equal bytes: nothing is put, and what was uploaded for it goes away.
	for range 2 {
		if r, err = c.Put(ctx, 1, nsm.CreateOrEqual, 0, object("a", 3, "one", 4, 5, 6)); err != nil || !r.Existed || r.Version != 1 {
			t.Fatal(r, err)
		}
	}
	if keys, err := c.ListObsolete(ctx, 5, nil, 10, userfn.Consistent); err != nil || len(keys) != 1 || keys[0].ID != id(3) {
		t.Fatal(keys, err)
	}
	_, err = c.Put(ctx, 1, nsm.Create, 0, object("b", 3, "one", 4, 5, 6))
	want(t, "an id whose fragments are being deleted", err, nsm.ErrIDUsed)

	_, err = c.Put(ctx, 1, nsm.ReplaceIf, 2, object("a", 4, "two", 1, 2, 3))
	want(t, "another version", err, nsm.ErrConflict)
	r, err = c.Put(ctx, 1, nsm.ReplaceIf, 1, object("a", 4, "two", 1, 2, 3))
	if err != nil || r.Version != 2 || r.Replaced == nil || r.Replaced.ID != id(1) {
		t.Fatal(r, err)
	}
	_, err = c.Put(ctx, 1, nsm.Create, 0, object("b", 4, "two", 1, 2, 3))
	want(t, "an id in use", err, nsm.ErrIDUsed)
	_, err = c.Put(ctx, 1, nsm.Replace, 0, object("a", 1, "one", 1, 2, 3))
	want(t, "an id of one that is gone", err, nsm.ErrIDUsed)
	check(t, s)

	// The version does not come back with the name.
	if _, err := c.Delete(ctx, 1, []string{"a"}, nil); err != nil {
		t.Fatal(err)
	}
	r, err = c.Put(ctx, 1, nsm.ReplaceIf, 0, object("a", 5, "three"))
	if err != nil || r.Version != 3 {
		t.Fatal(r, err)
	}
	o, err := c.Get(ctx, 1, "a", userfn.Consistent)
	if err != nil || string(o.Manifest) != "manifest of a 5" || o.Stored() != uint64(len(o.Manifest)) {
		t.Fatal(o, err)
	}
	if o, err = c.GetByID(ctx, 1, id(5), userfn.Consistent); err != nil || o.Name != "a" {
		t.Fatal(o, err)
	}
	_, err = c.GetByID(ctx, 1, id(1), userfn.Consistent)
	want(t, "an id that is gone", err, nsm.ErrNotFound)
	check(t, s)
}

func TestPutRefuses(t *testing.T) {
	s, c := host(t)
	before := string(s.Dump())
	for name, test := range map[string]struct {
		change func(o *nsm.Object)
		want   error
	}{
		"epoch 0":        {func(o *nsm.Object) { o.Epoch = 0 }, nsm.ErrEpoch},
		"next epoch":     {func(o *nsm.Object) { o.Epoch = 2 }, nsm.ErrEpoch},
		"no name":        {func(o *nsm.Object) { o.Name = "" }, nsm.ErrInvalid},
		"no id":          {func(o *nsm.Object) { o.ID = [16]byte{} }, nsm.ErrInvalid},
		"no manifest":    {func(o *nsm.Object) { o.Manifest = nil }, nsm.ErrInvalid},
		"huge manifest":  {func(o *nsm.Object) { o.Manifest = make([]byte, nsm.MaxManifest+1) }, nsm.ErrInvalid},
		"huge size":      {func(o *nsm.Object) { o.Size = nsm.MaxSize + 1 }, nsm.ErrInvalid},
		"policy":         {func(o *nsm.Object) { o.Policy.C = 1 }, nsm.ErrInvalid},
		"inline policy":  {func(o *nsm.Object) { o.Chunks = nil }, nsm.ErrInvalid},
		"width":          {func(o *nsm.Object) { o.Policy.M = 2 }, nsm.ErrInvalid},
		"no length":      {func(o *nsm.Object) { o.Chunks[0].Length = 0 }, nsm.ErrInvalid},
		"used version":   {func(o *nsm.Object) { o.Chunks[0].Fragments[0].Version = 1 }, nsm.ErrInvalid},
		"same OSD":       {func(o *nsm.Object) { o.Chunks[0].Fragments[0].OSD = 3 }, nsm.ErrSpread},
		"too few":        {func(o *nsm.Object) { o.Policy.C = 3; o.Chunks[0].Fragments[0].OSD = 0 }, nsm.ErrSpread},
		"unknown OSD":    {func(o *nsm.Object) { o.Chunks[0].Fragments[0].OSD = 10 }, nsm.ErrOSD},
		"crowded node":   {func(o *nsm.Object) { o.Policy.X = 1; o.Chunks[0].Fragments[0].OSD = 5 }, nsm.ErrSpread},
		"too many parts": {func(o *nsm.Object) { o.Chunks = make([]nsm.Chunk, nsm.MaxChunks+1) }, nsm.ErrInvalid},
	} {
		o := object("a", 1, "one", 1, 2, 3)
		test.change(o)
		_, err := c.Put(ctx, 1, nsm.Create, 0, o)
		want(t, name, err, test.want)
	}
	_, err := c.Put(ctx, 2, nsm.Create, 0, object("a", 1, "one"))
	want(t, "namespace", err, nsm.ErrNamespaceNotFound)
	_, err = c.Put(ctx, 1, 9, 0, object("a", 1, "one"))
	want(t, "mode", err, nsm.ErrInvalid)
	if string(s.Dump()) != before {
		t.Fatal("a refused put left something")
	}
}

func TestConditionalDelete(t *testing.T) {
	s, c := host(t)
	for i, name := range []string{"cat", "x", "y"} {
		if _, err := c.Put(ctx, 1, nsm.Create, 0, object(name, uint64(i+1), name, 1, 2, 3)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.Delete(ctx, 1, []string{"x", "y"}, &nsm.Condition{Name: "cat", Version: 9})
	want(t, "stale condition", err, nsm.ErrConflict)
	_, err = c.Delete(ctx, 1, []string{"x", "y"}, &nsm.Condition{Name: "cat"})
	want(t, "absent condition", err, nsm.ErrConflict)
	if list, _ := c.List(ctx, 1, "", "", 10, userfn.Consistent); len(list) != 3 {
		t.Fatal("a refused delete removed something")
	}
	r, err := c.Delete(ctx, 1, []string{"x", "gone", "y", "x"}, &nsm.Condition{Name: "cat", Version: 1})
	if err != nil || r.Objects != 2 || r.Stored != 2*3*4096 {
		t.Fatal(r, err)
	}
	_, err = c.Delete(ctx, 1, make([]string, nsm.MaxNames+1), nil)
	want(t, "too many", err, nsm.ErrInvalid)
	check(t, s)
}

func TestEpochs(t *testing.T) {
	s, c := host(t)
	_, err := c.CloseEpoch(ctx, 1, 1)
	want(t, "the only epoch", err, nsm.ErrConflict)
	for range 2 { // a retry opens no second one
		if e, err := c.OpenEpoch(ctx, 1, 2); err != nil || e != (nsm.Epochs{Minimum: 1, Next: 3}) {
			t.Fatal(e, err)
		}
	}
	_, err = c.OpenEpoch(ctx, 1, 4)
	want(t, "a gap", err, nsm.ErrConflict)
	if _, err := c.Put(ctx, 1, nsm.Create, 0, object("a", 1, "one", 1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Delete(ctx, 1, []string{"a"}, nil); err != nil {
		t.Fatal(err)
	}
	if e, err := c.CloseEpoch(ctx, 1, 1); err != nil || e != (nsm.Epochs{Minimum: 2, Next: 3}) {
		t.Fatal(e, err)
	}
	// The id of the deleted object is forgotten: the epoch refuses it now.
	_, err = c.Put(ctx, 1, nsm.Create, 0, object("a", 1, "one", 1, 2, 3))
	want(t, "a late put", err, nsm.ErrEpoch)
	check(t, s)
}

func TestUpdate(t *testing.T) {
	s, c := host(t)
	if _, err := c.Put(ctx, 1, nsm.Create, 0, object("a", 1, "one", 1, 2, 0)); err != nil {
		t.Fatal(err)
	}
	if list, err := c.Degraded(ctx, 1, 10, userfn.Consistent); err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	update := func(rev uint32, changes ...nsm.Change) (uint32, error) {
		return c.Update(ctx, 1, nsm.Update{Name: "a", ID: id(1), Revision: rev, Epoch: 1, Changes: changes, Manifest: []byte(fmt.Sprint(rev, changes))})
	}
	at := func(fragment uint16, osd uint64, version uint32) nsm.Change {
		return nsm.Change{Fragment: fragment, To: nsm.Fragment{OSD: osd, Version: version}}
	}
	for range 2 { // the late fragment, and its retry
		if rev, err := update(0, at(2, 3, 0)); err != nil || rev != 1 {
			t.Fatal(rev, err)
		}
	}
	check(t, s)
	_, err := update(0, at(2, 4, 1))
	want(t, "stale revision", err, nsm.ErrConflict)
	_, err = update(1, at(2, 4, 0))
	want(t, "late into a filled place", err, nsm.ErrConflict)
	_, err = update(1, at(2, 4, 1))
	want(t, "old version", err, nsm.ErrInvalid)
	_, err = update(1, at(2, 1, 2))
	want(t, "same OSD", err, nsm.ErrSpread)
	_, err = update(1, at(0, 0, 0), at(1, 0, 0))
	want(t, "fewer than k", err, nsm.ErrSpread)
	_, err = update(1, at(3, 4, 2))
	want(t, "no such place", err, nsm.ErrInvalid)
	_, err = update(1, at(2, 4, 2), at(2, 5, 2))
	want(t, "twice", err, nsm.ErrInvalid)
	if _, err = c.Update(ctx, 1, nsm.Update{Name: "a", ID: id(2), Epoch: 1, Changes: []nsm.Change{at(0, 4, 1)}}); !errors.Is(err, nsm.ErrNotFound) {
		t.Fatal(err)
	}
	if rev, err := update(1, at(2, 3, 2)); err != nil || rev != 2 { // in place
		t.Fatal(rev, err)
	}
	if rev, err := update(2, at(2, 0, 0)); err != nil || rev != 3 { // dropped
		t.Fatal(rev, err)
	}
	_, err = update(3, at(2, 3, 0))
	want(t, "late into a dropped place", err, nsm.ErrConflict)
	check(t, s)
	keys, err := c.ListObsolete(ctx, 3, nil, 10, userfn.Consistent)
	if err != nil || len(keys) != 2 || keys[0].Version != 0 || keys[1].Version != 2 {
		t.Fatal(keys, err)
	}
	if o, err := c.Get(ctx, 1, "a", userfn.Consistent); err != nil || o.Version != 1 || o.Revision != 3 {
		t.Fatal(o, err)
	}
	if step, err := c.MarkDeleted(ctx, 3, append(keys, keys...)); err != nil || step.Removed != 2 || !step.Done {
		t.Fatal(step, err)
	}
	check(t, s)
}

func TestMessagesOnceInOrder(t *testing.T) {
	s, c := host(t)
	before := string(s.Dump())
	if n, err := c.Deliver(ctx, 1, []nsm.Message{{Kind: nsm.MessageDeleteNamespace, Namespace: 1}}); err != nil || n != 10 || string(s.Dump()) != before {
		t.Fatal("a message was applied twice", n, err)
	}
	_, err := c.Deliver(ctx, 12, []nsm.Message{{Kind: nsm.MessageDeleteNamespace, Namespace: 1}})
	want(t, "a gap", err, nsm.ErrGap)
	_, err = c.Deliver(ctx, 11, []nsm.Message{{Kind: 99}})
	want(t, "an unknown kind", err, userfn.Errorf(userfn.CodeNewer, ""))
	if n, err := c.Applied(ctx, userfn.Consistent); err != nil || n != 10 {
		t.Fatal(n, err)
	}
}

func TestRemoveNamespaceAndOSD(t *testing.T) {
	s, c := host(t)
	for i := range uint64(20) {
		if _, err := c.Put(ctx, 1, nsm.Create, 0, object(fmt.Sprint(i), i+1, "x", 1, 2, 3)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Delete(ctx, 1, []string{"7"}, nil); err != nil {
		t.Fatal(err)
	}
	_, err := c.Cleanup(ctx, 1, 8)
	want(t, "cleanup of an active namespace", err, nsm.ErrInUse)
	_, err = c.ForgetOSD(ctx, 1)
	want(t, "an OSD that is linked", err, nsm.ErrInUse)
	if _, err := c.Deliver(ctx, 11, []nsm.Message{
		{Kind: nsm.MessageUnlinkOSD, OSD: 1}, {Kind: nsm.MessageUnlinkOSD, OSD: 2, Lost: true}, {Kind: nsm.MessageUnlinkOSD, OSD: 2},
	}); err != nil {
		t.Fatal(err)
	}
	_, err = c.Put(ctx, 1, nsm.Create, 0, object("new", 99, "x", 1, 3, 4))
	want(t, "an OSD that drains", err, nsm.ErrOSD)
	if step, err := c.ForgetOSD(ctx, 2); err != nil || step.Done || step.Removed != 1 {
		t.Fatal(step, err)
	}
	if _, err := c.Deliver(ctx, 14, []nsm.Message{{Kind: nsm.MessageDeleteNamespace, Namespace: 1}}); err != nil {
		t.Fatal(err)
	}
	_, err = c.Get(ctx, 1, "3", userfn.Consistent)
	want(t, "a namespace being removed", err, nsm.ErrNamespaceNotFound)
	steps := 0
	for done := false; !done; steps++ {
		step, err := c.Cleanup(ctx, 1, 8)
		if err != nil {
			t.Fatal(err)
		}
		check(t, s)
		done = step.Done
	}
	if steps != 3 {
		t.Fatalf("19 objects went in %d steps of 8", steps)
	}
	if step, err := c.ForgetOSD(ctx, 1); err != nil || step.Done {
		t.Fatal("fragments are to be deleted on it still", step, err)
	}
	keys, err := c.ListObsolete(ctx, 1, nil, 100, userfn.Consistent)
	if err != nil || len(keys) != 20 {
		t.Fatal(len(keys), err)
	}
	if _, err := c.MarkDeleted(ctx, 1, keys); err != nil {
		t.Fatal(err)
	}
	for osd := uint64(1); osd <= 2; osd++ {
		if step, err := c.ForgetOSD(ctx, osd); err != nil || !step.Done {
			t.Fatal(osd, step, err)
		}
	}
	check(t, s)
	if osds, err := c.OSDs(ctx, 0, 100, userfn.Consistent); err != nil || len(osds) != 7 || osds[0].Number != 3 || osds[0].Obsolete.Fragments != 20 {
		t.Fatal(osds, err)
	}
}

// Check must see what it is for.
func TestCheckFinds(t *testing.T) {
	for _, table := range "EIBCUSTXN" {
		s, c := host(t)
		for i, name := range []string{"a", "b"} {
			if _, err := c.Put(ctx, 1, nsm.Create, 0, object(name, uint64(i+1), name, 1, 2, 3)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Put(ctx, 1, nsm.Create, 0, object("narrow", 3, "c", 1, 2, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Delete(ctx, 1, []string{"b"}, nil); err != nil {
			t.Fatal(err)
		}
		check(t, s)
		s.Edit(func(tx userfn.Tx) {
			var k []byte
			base := []byte("nsm/" + string(table))
			tx.Range(base, userfn.PrefixEnd(base), 1, func(key, _ []byte) bool {
				k = append(k, key...)
				return true
			})
			if table == 'T' { // that one is missed by nothing; one too many is
				tx.Set(append(k[:len(k)-16], make([]byte, 15)...), []byte{1})
				return
			}
			tx.Delete(k)
		})
		if err := s.View(nsm.Check); err == nil {
			t.Errorf("table %c: damage was not found", table)
		}
	}
}
