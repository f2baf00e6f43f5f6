package host

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"openvstorage/arakoon"
	"openvstorage/internal/control"
	"openvstorage/trust"
)

// pageMost is how many bytes of keys and values a page has, but for its last entry.
const pageMost = 4 << 20

func consistency(local bool, atLeast uint64) arakoon.Consistency {
	switch {
	case local:
		return arakoon.Local
	case atLeast > 0:
		return arakoon.AtLeast(atLeast)
	}
	return arakoon.Consistent
}

// isSecret reports whether a key's value is shown to nobody: the sealed key of the authority.
func isSecret(group string, key []byte) bool {
	return group == registryGroup && trust.KeyCall(false, key, append(bytes.Clone(key), 0)) == "trust/key"
}

// isTrusts reports whether a change of keys is one of the records of trust, which only trust
// itself makes: whoever could write them by hand could make a host or a person of anybody.
func isTrusts(w control.KeyWrite) bool {
	to := append(bytes.Clone(w.Key), 0)
	if w.Action == control.ActionDeletePrefix {
		to = arakoon.PrefixBounds(w.Key).Last
	}
	return w.Group == registryGroup && trust.KeyCall(true, w.Key, to) == "trust/write"
}

func (m managedGroups) Get(ctx context.Context, r control.KeyRead) (control.KeyValue, error) {
	n, err := m.keys(r.Group, r.Local)
	if err != nil {
		return control.KeyValue{}, err
	}
	if isSecret(r.Group, r.Key) {
		return control.KeyValue{}, fmt.Errorf("%w: key %q of group %s is the sealed key of the cluster's authority, which is shown to nobody: `ovs ca show` has the rest", control.ErrInvalid, r.Key, r.Group)
	}
	v, err := n.Get(ctx, consistency(r.Local, r.AtLeast), r.Key)
	return control.KeyValue{Key: r.Key, Value: v}, groupError(r.Group, err)
}

func (m managedGroups) Exists(ctx context.Context, r control.KeyRead) (bool, error) {
	n, err := m.keys(r.Group, r.Local)
	if err != nil {
		return false, err
	}
	found, err := n.Exists(ctx, consistency(r.Local, r.AtLeast), r.Key)
	return found, groupError(r.Group, err)
}

// bounds are those of a range, from First on and before Last, and with the prefix.
func bounds(r control.KeyRange) arakoon.Bounds {
	b := arakoon.PrefixBounds(r.Prefix)
	if bytes.Compare(r.First, b.First) > 0 {
		b.First = r.First
	}
	if len(r.Last) > 0 && (b.Last == nil || bytes.Compare(r.Last, b.Last) < 0) {
		b.Last = r.Last
	}
	return b
}

func (m managedGroups) Range(ctx context.Context, r control.KeyRange) (page control.KeyPage, err error) {
	n, err := m.keys(r.Group, r.Local)
	if err != nil {
		return page, err
	}
	size, b := 0, bounds(r)
	if b.Last != nil && bytes.Compare(b.First, b.Last) >= 0 {
		return page, nil
	}
	visit := n.Range
	if r.Reverse {
		visit = n.Reverse
	}
	err = visit(ctx, consistency(r.Local, r.AtLeast), b.First, b.Last, 0, func(key, value []byte) bool {
		if page.More = r.Limit > 0 && len(page.Entries) == r.Limit || size > pageMost; page.More {
			return false
		}
		e := control.KeyValue{Key: key}
		if size += len(key) + 64; !r.KeysOnly && !isSecret(r.Group, key) {
			e.Value = value
			size += len(value)
		}
		page.Entries = append(page.Entries, e)
		return ctx.Err() == nil
	})
	if err == nil {
		err = ctx.Err()
	}
	return page, groupError(r.Group, err)
}

func (m managedGroups) Count(ctx context.Context, r control.KeyRange) (uint64, error) {
	n, err := m.keys(r.Group, r.Local)
	if err != nil {
		return 0, err
	}
	b := bounds(r)
	count, err := n.Count(ctx, consistency(r.Local, r.AtLeast), b.First, b.Last)
	return count, groupError(r.Group, err)
}

// belongs says what the records of a group are, which belong together.
func belongs(group string) string {
	switch {
	case group == registryGroup:
		return "names, owners and epochs of vDisks, and what the cluster's hosts and certificates are"
	case group == "abm":
		return "disks, namespaces and presets, which the manifests in the other groups refer to"
	case strings.HasPrefix(group, "nsm-"):
		return "manifests of objects and the counts of them"
	}
	return "records that belong together"
}

// Write changes keys by hand. Every group that there is holds records that belong together:
// its users keep several of them in step in one sequence, and cache others. So whoever writes
// must say that this is known.
func (m managedGroups) Write(ctx context.Context, w control.KeyWrite) (out control.KeyWritten, err error) {
	n, err := m.keys(w.Group, false)
	if err != nil {
		return out, err
	}
	if !w.Known {
		return out, fmt.Errorf("%w: group %s holds %s: they are kept in step with each other and with what is on disks, and a change of one by hand can lose data. Take a backup (`ovs arakoon backup`), and then say --i-know", control.ErrInvalid, w.Group, belongs(w.Group))
	}
	seq, err := sequenceOf(w)
	if err != nil {
		return out, err
	}
	if isTrusts(w) {
		return out, fmt.Errorf("%w: %q are records of hosts and certificates, which are not changed by hand: use `ovs host` and `ovs ca`", control.ErrInvalid, w.Key)
	}
	var results []arakoon.Result
	if out.Revision, results, err = n.Write(ctx, seq); err != nil {
		return control.KeyWritten{}, groupError(w.Group, err)
	}
	r := results[0]
	old := func() {
		if r.Found {
			v := append([]byte{}, r.Value...)
			out.Old = &v
		}
	}
	switch w.Action {
	case control.ActionReplace:
		old()
	case control.ActionTestAndSet:
		old()
		out.Changed = new(bool)
		*out.Changed = r.Found == (w.Expected != nil) && (w.Expected == nil || bytes.Equal(*w.Expected, r.Value))
	case control.ActionConfirm:
		out.Changed = new(bool)
		*out.Changed = !r.Found
	case control.ActionDeletePrefix:
		out.Count = &r.Count
	}
	return out, nil
}

// sequenceOf is what a write does.
func sequenceOf(w control.KeyWrite) (*arakoon.Sequence, error) {
	value := func(p *[]byte) []byte {
		if p == nil {
			return nil
		}
		return append([]byte{}, *p...) // not nil, which would be no value
	}
	seq := new(arakoon.Sequence)
	switch w.Action {
	case control.ActionSet, control.ActionConfirm:
		if w.Value == nil {
			return nil, fmt.Errorf("%w: %s wants a value", control.ErrInvalid, w.Action)
		}
		if w.Action == control.ActionConfirm {
			return seq.Confirm(w.Key, value(w.Value)), nil
		}
		return seq.Set(w.Key, value(w.Value)), nil
	case control.ActionDelete:
		return seq.Delete(w.Key), nil
	case control.ActionReplace:
		return seq.Replace(w.Key, value(w.Value)), nil
	case control.ActionTestAndSet:
		return seq.TestAndSet(w.Key, value(w.Expected), value(w.Value)), nil
	case control.ActionDeletePrefix:
		if len(w.Key) == 0 {
			return nil, fmt.Errorf("%w: an empty prefix is all that the group holds", control.ErrInvalid)
		}
		return seq.DeletePrefix(w.Key), nil
	}
	return nil, fmt.Errorf("%w: this release does not know the action %q", control.ErrInvalid, w.Action)
}

func (m managedGroups) Watch(ctx context.Context, w control.KeyWatch, tell func(control.KeyEvents) error) error {
	n, err := m.watched(w.Group)
	if err != nil {
		return err
	}
	return groupError(w.Group, n.Watch(ctx, w.Prefix, w.From, func(e arakoon.Events) error {
		told := control.KeyEvents{Revision: e.Revision}
		for _, one := range e.List {
			if isSecret(w.Group, one.Key) {
				one.Value = nil
			}
			told.Events = append(told.Events, control.KeyEvent{Key: one.Key, Value: one.Value, Deleted: one.Deleted})
		}
		return tell(told)
	}))
}
