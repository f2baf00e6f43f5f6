package abm

import (
	"fmt"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// Check verifies that names, numbers, counters and queues agree. It reads all
// keys: it is for tests and for offline checks. The error names what is wrong.
func Check(tx userfn.Tx) error {
	c := &checker{tx: tx, uses: map[string]uint64{}, namespaces: map[uint64]uint64{}}
	ok, err := load(tx, backendKey(), &c.backend)
	if err != nil || !ok {
		return err
	}
	for _, step := range []func() error{c.osds, c.allNamespaces, c.presets, c.hosts, c.leases, c.keys, c.work} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

type checker struct {
	tx         userfn.Tx
	backend    Backend
	uses       map[string]uint64 // namespaces of each preset
	namespaces map[uint64]uint64 // namespaces of each host
}

// all calls fn with every record of a table and returns how many there are.
func all[T any, R interface {
	*T
	record.Record
}](tx userfn.Tx, base []byte, fn func(k []byte, v R) error) (uint64, error) {
	n := uint64(0)
	err := each(tx, base, 1<<30, func(k, raw []byte) error {
		n++
		var v T
		if err := decode(k, raw, R(&v)); err != nil {
			return err
		}
		return fn(k, &v)
	})
	return n, err
}

// rows returns the number of keys of a table.
func (c *checker) rows(table byte) uint64 {
	n := uint64(0)
	base := key(table)
	c.tx.Range(base, userfn.PrefixEnd(base), 1<<30, func(_, _ []byte) bool { n++; return true })
	return n
}

func (c *checker) osds() error {
	claimed := uint64(0)
	n, err := all(c.tx, key(tableOSD), func(k []byte, o *OSD) error {
		switch {
		case string(k) != string(osdKey(o.LongID)):
			return fmt.Errorf("key %q: it holds OSD %x", k, o.LongID)
		case (o.Number == 0) != (o.State == OSDAvailable) || o.Number >= c.backend.NextOSD:
			return fmt.Errorf("key %q: it is %v with number %d, the next is %d", k, o.State, o.Number, c.backend.NextOSD)
		case o.Number == 0:
			return nil
		}
		claimed++
		if long, _ := c.tx.Get(key(tableOSDNumber, o.Number)); string(long) != string(o.LongID[:]) {
			return fmt.Errorf("key %q: number %d is that of OSD %x", k, o.Number, long)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case n != c.backend.OSDs:
		return fmt.Errorf("there are %d OSDs, the backend counts %d", n, c.backend.OSDs)
	case claimed != c.rows(tableOSDNumber):
		return fmt.Errorf("%d OSDs are claimed, %d numbers are taken", claimed, c.rows(tableOSDNumber))
	}
	return nil
}

func (c *checker) allNamespaces() error {
	named := uint64(0)
	_, err := all(c.tx, key(tableNamespace), func(k []byte, n *Namespace) error {
		if string(k) != string(namespaceKey(n.Number)) || n.Number >= c.backend.NextNamespace {
			return fmt.Errorf("key %q: it holds namespace %d, the next is %d", k, n.Number, c.backend.NextNamespace)
		}
		c.namespaces[n.Host]++
		if (n.State == NamespaceMoving) != (n.Other != 0) || n.Switched && n.Other == 0 {
			return fmt.Errorf("key %q: it is %v, with NSM host %d besides", k, n.State, n.Other)
		}
		if n.Other != 0 {
			c.namespaces[n.Other]++
		}
		if n.State == NamespaceRemoving {
			return nil
		}
		named++
		c.uses[n.Preset]++
		var at number
		ok, err := load(c.tx, nameKey(n.Name), &at)
		if err == nil && (!ok || at.v != n.Number) {
			err = fmt.Errorf("key %q: the name %q is that of namespace %d", k, n.Name, at.v)
		}
		return err
	})
	if err == nil && named != c.rows(tableNamespaceName) {
		err = fmt.Errorf("%d namespaces have a name, %d names are taken", named, c.rows(tableNamespaceName))
	}
	return err
}

func (c *checker) presets() error {
	base := key(tablePreset)
	n, err := all(c.tx, base, func(k []byte, p *Preset) error {
		name := string(k[len(base):])
		if p.Uses != c.uses[name] {
			return fmt.Errorf("preset %q: it counts %d namespaces, %d have it", name, p.Uses, c.uses[name])
		}
		delete(c.uses, name)
		return nil
	})
	switch {
	case err != nil:
		return err
	case n != c.backend.Presets:
		return fmt.Errorf("there are %d presets, the backend counts %d", n, c.backend.Presets)
	case len(c.uses) > 0:
		return fmt.Errorf("namespaces have presets that do not exist: %v", c.uses)
	}
	if c.backend.Default != "" {
		_, err = loadPreset(c.tx, c.backend.Default)
	}
	return err
}

func (c *checker) hosts() error {
	queued := uint64(0)
	n, err := all(c.tx, key(tableHost), func(k []byte, h *Host) error {
		if h.Namespaces != c.namespaces[h.Number] {
			return fmt.Errorf("NSM host %d: it counts %d namespaces, %d have it", h.Number, h.Namespaces, c.namespaces[h.Number])
		}
		delete(c.namespaces, h.Number)
		var at number
		if ok, err := load(c.tx, named(tableHostName, h.Name), &at); err != nil || !ok || at.v != h.Number {
			return fmt.Errorf("NSM host %d: its name %q is that of %d (%v)", h.Number, h.Name, at.v, err)
		}
		for i := h.Delivered + 1; i < h.NextMessage; i++ {
			var m nsm.Message
			if ok, err := load(c.tx, messageKey(h.Number, i), &m); err != nil || !ok {
				return fmt.Errorf("NSM host %d: message %d is missing (%v)", h.Number, i, err)
			}
			queued++
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case n != c.backend.Hosts || n != c.rows(tableHostName):
		return fmt.Errorf("there are %d NSM hosts with %d names, the backend counts %d", n, c.rows(tableHostName), c.backend.Hosts)
	case len(c.namespaces) > 0:
		return fmt.Errorf("namespaces are on NSM hosts that do not exist: %v", c.namespaces)
	case queued != c.rows(tableMessage):
		return fmt.Errorf("%d messages are queued, %d are kept", queued, c.rows(tableMessage))
	}
	return nil
}

func (c *checker) leases() error {
	if n := c.rows(tableLease); n != c.backend.Leases {
		return fmt.Errorf("there are %d leases, the backend counts %d", n, c.backend.Leases)
	}
	return nil
}

// work demands that names, waiting items and totals are those of the items.
func (c *checker) work() error {
	var t, is WorkTotals
	if _, err := load(c.tx, workTotalsKey(), &t); err != nil {
		return err
	}
	waiting := uint64(0)
	_, err := all(c.tx, key(tableWork), func(k []byte, w *Work) error {
		is.Items++
		var at number
		if ok, err := load(c.tx, workNameKey(w.Name), &at); err != nil || !ok || at.v != w.Number || string(k) != string(workKey(w.Number)) {
			return fmt.Errorf("key %q: it holds work %d, and the name %q is that of %d (%v)", k, w.Number, w.Name, at.v, err)
		}
		if w.Number > t.Last || w.Fence > t.Fence {
			return fmt.Errorf("key %q: number %d, fence %d are above %+v", k, w.Number, w.Fence, t)
		}
		_, waits := c.tx.Get(waitingKey(w.Number))
		switch {
		case waits != (w.State == WorkWaiting):
			return fmt.Errorf("key %q: it is %v, listed as waiting: %v", k, w.State, waits)
		case waits:
			waiting++
		case w.State == WorkFailed:
			is.Failed++
		}
		return nil
	})
	if err == nil && (is.Items != t.Items || is.Failed != t.Failed || is.Items != c.rows(tableWorkName) || waiting != c.rows(tableWaiting)) {
		err = fmt.Errorf("the queue has %+v with %d names, %d of %d wait; it counts %+v", is, c.rows(tableWorkName), c.rows(tableWaiting), waiting, t)
	}
	return err
}
