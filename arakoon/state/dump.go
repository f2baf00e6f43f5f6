package state

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"openvstorage/internal/disk/pebblefs"

	"github.com/cockroachdb/pebble/v2"
	"github.com/google/uuid"
)

// Dump writes as text what the state in a directory holds: a line for the meta, and one for
// each session, lease and key, in the order of the keys in Pebble. Of a value the first
// valueMax bytes are shown, quoted; below 0 all of them. It changes nothing, and the state
// must not be open in another process. A state of another cluster or member is shown too.
func Dump(opt Options, w io.Writer, valueMax int) error {
	opt = opt.withDefaults()
	err := readOnly(opt, func(db *pebble.DB) error {
		i := &Image{snap: db.NewSnapshot()}
		defer func() { _ = i.Close() }() // of a reader
		return i.dump(w, valueMax)
	})
	if errors.Is(err, pebble.ErrDBDoesNotExist) {
		err = fmt.Errorf("%w: it holds no state", ErrDamaged)
	}
	if err != nil {
		return fmt.Errorf("arakoon state: dump %s: %w", opt.Dir, err)
	}
	return nil
}

// readOnly opens a directory so that nothing changes in it.
func readOnly(opt Options, fn func(db *pebble.DB) error) error {
	fs := pebblefs.New(opt.FS, pebblefs.Options{})
	po, done := opt.pebble(fs)
	defer done()
	po.ReadOnly, po.ErrorIfNotExists, po.FS = true, true, withoutOptions{fs}
	db, err := pebblefs.Open(opt.Dir, po)
	if err != nil {
		return damaged(err)
	}
	return errors.Join(fn(db), db.Close())
}

func (i *Image) dump(w io.Writer, valueMax int) error {
	v, found, err := get(i.snap, metaKey)
	if err != nil {
		return err
	}
	m, known := meta{}, "nothing was applied"
	if found {
		if m, err = decodeMeta(v); err != nil {
			return err
		}
		c := m.at.Conf
		known = fmt.Sprintf("cluster %v member %d index %d term %d level %d life %d generation %d time %d voters %v learners %v outgoing %v next %v",
			m.cluster, m.member, m.at.Index, m.at.Term, m.level, m.life, m.generation, m.time, c.GetVoters(), c.GetLearners(), c.GetVotersOutgoing(), c.GetLearnersNext())
	}
	if _, err := fmt.Fprintf(w, "meta: %s\n", known); err != nil {
		return err
	}
	return i.each(func(key, value []byte) error {
		line, err := describeKey(key, value, valueMax)
		if err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
		_, err = fmt.Fprintln(w, line)
		return err
	})
}

func describeKey(key, value []byte, valueMax int) (string, error) {
	rest := key[1:]
	switch {
	case key[0] == userPrefix[0]:
		return fmt.Sprintf("key %q: %s", rest, describeBytes(value, valueMax)), nil
	case key[0] == leasePrefix[0]:
		l, err := decodeLease(string(rest), value)
		return fmt.Sprintf("lease %q: owner %v fence %d renewed %d ttl %v", rest, l.Owner, l.Fence, l.Renewed, l.TTL), err
	case string(key) == string(zonesKey):
		r, err := decodeRequirement(value)
		return fmt.Sprintf("zones required: %v", r), err
	case key[0] == 's' && len(rest) == 16:
		s, kind, out, err := decodeSession(value)
		line := fmt.Sprintf("session %v: request %d at %d.%d, kind %d", uuid.UUID(rest), s.request, s.index, s.position, kind)
		if out.Err != nil {
			line += fmt.Sprintf(", error %q", out.Err.Error())
		}
		return line, err
	}
	return fmt.Sprintf("other %q: %s", key, describeBytes(value, valueMax)), nil
}

func describeBytes(b []byte, most int) string {
	if most < 0 || len(b) <= most {
		return fmt.Sprintf("%d bytes %q", len(b), b)
	}
	return fmt.Sprintf("%d bytes %q...", len(b), b[:most])
}

// DescribeEntry returns the data of an entry of the raft log as text: a line for the batch,
// and one for each command with its steps. Of a value the first valueMax bytes are shown,
// below 0 all of them.
func DescribeEntry(data []byte, valueMax int) ([]string, error) {
	batch, err := DecodeBatch(data)
	if err != nil {
		return nil, err
	}
	lines := []string{fmt.Sprintf("batch %016x.%d: %d commands", batch.Origin, batch.Number, len(batch.Commands))}
	for _, c := range batch.Commands {
		line := fmt.Sprintf("session %v request %d time %d:", c.Session, c.Request, c.Time)
		if c.Open {
			line += " open"
		}
		for r := (&reader{b: c.Body}); len(r.b) > 0; {
			s, err := readStep(r)
			if err != nil {
				return lines, err
			}
			line += " " + s.describe(valueMax) + ";"
		}
		lines = append(lines, line)
	}
	return lines, nil
}

var stepNames = [...]string{
	opSet: "set", opDelete: "delete", opDeletePrefix: "delete prefix", opAssert: "assert", opAssertExists: "assert exists",
	opAssertRange: "assert range", opTestAndSet: "test and set", opReplace: "replace", opCall: "call", opConfirm: "confirm",
	opAcquire: "acquire", opRenew: "renew", opRelease: "release", opAssertLease: "assert lease", opExpire: "expire",
	opRaise: "raise", opMark: "mark", opRequire: "require zones",
}

func (s step) describe(valueMax int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %q", stepNames[s.op], s.key)
	option := func(name string, v []byte) {
		if v == nil {
			fmt.Fprintf(&b, " %s none", name)
		} else {
			fmt.Fprintf(&b, " %s %s", name, describeBytes(v, valueMax))
		}
	}
	switch s.op {
	case opSet, opConfirm, opAssert:
		option("value", s.value)
	case opTestAndSet:
		option("expected", s.value)
		option("wanted", s.wanted)
	case opReplace:
		option("wanted", s.wanted)
	case opAssertRange:
		fmt.Fprintf(&b, " %d keys", len(s.keys))
	case opCall:
		fmt.Fprintf(&b, " version %d", s.number)
		option("argument", s.value)
	case opAcquire:
		fmt.Fprintf(&b, " owner %v ttl %d ms", uuid.UUID(s.owner), s.ttl)
	case opRenew:
		fmt.Fprintf(&b, " fence %d ttl %d ms", s.fence, s.ttl)
	case opRelease, opAssertLease:
		fmt.Fprintf(&b, " fence %d", s.fence)
	case opExpire:
		fmt.Fprintf(&b, " fence %d renewed %d", s.fence, s.renewed)
	case opRequire:
		fmt.Fprintf(&b, " zones %d asserted %v", s.number, s.asserted)
	case opRaise:
		fmt.Fprintf(&b, " level %d alone %v", s.number, s.alone)
	}
	return b.String()
}
