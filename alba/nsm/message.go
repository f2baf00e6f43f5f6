package nsm

import (
	"fmt"

	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// MessageKind says what the ABM tells an NSM host.
type MessageKind uint8

// Kinds of message. Numbers are stored.
const (
	MessageCreateNamespace MessageKind = 1
	MessageDeleteNamespace MessageKind = 2
	MessageLinkOSD         MessageKind = 3 // it takes fragments from now on
	MessageUnlinkOSD       MessageKind = 4 // it takes no new ones; if lost, it has none either

	// Those of many hosts.
	MessageMoveOSD MessageKind = 5 // it is on Node from now on
	MessageKnowOSD MessageKind = 6 // it takes no fragments, but a namespace that comes has some there
	// MessageImportNamespace: the namespace comes here in Generation, from Host (0: the disks).
	MessageImportNamespace MessageKind = 7
	MessageCancelImport    MessageKind = 8 // it does not come after all
)

// Message is what the ABM tells an NSM host.
type Message struct {
	Kind      MessageKind
	Namespace uint64
	OSD       uint64
	Node      string
	Lost      bool
	// Generation and Host are of version 2, as are the kinds from MessageMoveOSD on.
	Generation uint64
	Host       uint64
}

// messageHosts is the version of a message that has those kinds.
const messageHosts = 2

// Newest implements record.Versioned.
func (m *Message) Newest() uint8 { return messageHosts }

// Needs implements record.Versioned.
func (m *Message) Needs() uint8 {
	if m.Kind >= MessageMoveOSD {
		return messageHosts
	}
	return 1
}

// Fields implements record.Record: Enum kind, U64 namespace, U64 OSD, String
// node, Bool lost; version 2: U64 generation, U64 host.
func (m *Message) Fields(c *record.Codec) {
	k := uint8(m.Kind)
	last := MessageUnlinkOSD
	if c.Version() >= messageHosts {
		last = MessageCancelImport
	}
	c.Enum(&k, uint8(MessageCreateNamespace), uint8(last), "message kind")
	m.Kind = MessageKind(k)
	c.U64(&m.Namespace)
	c.U64(&m.OSD)
	c.String(&m.Node, MaxNode)
	c.Bool(&m.Lost)
	if c.Version() >= messageHosts {
		c.U64(&m.Generation)
		c.U64(&m.Host)
	}
}

// deliverArg: U64 number of the first message, List of messages.
type deliverArg struct {
	first    uint64
	messages []Message
}

func (a *deliverArg) Fields(c *record.Codec) {
	c.U64(&a.first)
	record.Records(c, &a.messages, MaxMessages)
}

// deliverHostsArg is deliverArg in version 2, which has messages of version 2. Version 1 of
// the function does not read it, nor do members that do not know its level.
type deliverHostsArg struct{ deliverArg }

// Newest implements record.Versioned.
func (a *deliverHostsArg) Newest() uint8 { return messageHosts }

// Needs implements record.Versioned.
func (a *deliverHostsArg) Needs() uint8 { return messageHosts }

func deliverHosts(tx userfn.Tx, a *deliverHostsArg) (*number, error) {
	return deliver(tx, &a.deliverArg)
}

// deliver applies the messages that were not applied before, and returns the
// number of the last one applied.
func deliver(tx userfn.Tx, a *deliverArg) (*number, error) {
	var applied number
	if _, err := load(tx, hostKey(), &applied); err != nil {
		return nil, err
	}
	if a.first == 0 || a.first > applied.v+1 {
		return nil, userfn.Errorf(userfn.CodeGap, "messages from %d on: the last one applied is %d; deliver those in between first", a.first, applied.v)
	}
	for i, m := range a.messages {
		n := a.first + uint64(i)
		if n <= applied.v {
			continue
		}
		if err := apply(tx, m); err != nil {
			return nil, err
		}
		applied.v = n
	}
	return &applied, store(tx, hostKey(), &applied)
}

// apply makes a message true. A message that is true already is no error: one that could
// not be applied would hold up all behind it for ever.
func apply(tx userfn.Tx, m Message) error {
	switch m.Kind {
	case MessageCreateNamespace:
		if _, ok := tx.Get(namespaceKey(m.Namespace)); ok {
			return nil
		}
		// Epoch 0 and version 0 mean none.
		return store(tx, namespaceKey(m.Namespace), &Namespace{
			State: NamespaceActive, Created: tx.Time(), Epochs: Epochs{Minimum: 1, Next: 2}, NextVersion: 1,
		})
	case MessageDeleteNamespace:
		var n Namespace
		ok, err := load(tx, namespaceKey(m.Namespace), &n)
		if !ok || err != nil || n.State == NamespaceMoved { // what another host has is not ours to remove
			return err
		}
		n.State = NamespaceRemoving
		return store(tx, namespaceKey(m.Namespace), &n)
	case MessageLinkOSD:
		if m.OSD == 0 || m.Node == "" {
			return userfn.Errorf(userfn.CodeInvalid, "link of OSD %d on node %q: it takes a number and a node", m.OSD, m.Node)
		}
		return store(tx, osdKey(m.OSD), &osdRecord{state: OSDLinked, node: m.Node})
	case MessageUnlinkOSD:
		return unlinkOSD(tx, m)
	case MessageMoveOSD, MessageKnowOSD:
		return placeOSD(tx, m)
	case MessageImportNamespace, MessageCancelImport:
		return applyMove(tx, m)
	}
	return userfn.Stop(fmt.Sprintf("message of kind %d", m.Kind), record.ErrNewer)
}

// placeOSD says on which node an OSD is. One that is not known becomes known only to
// MessageKnowOSD, as one that takes nothing.
func placeOSD(tx userfn.Tx, m Message) error {
	if m.OSD == 0 || m.Node == "" {
		return userfn.Errorf(userfn.CodeInvalid, "OSD %d on node %q: it takes a number and a node", m.OSD, m.Node)
	}
	var rec osdRecord
	known, err := load(tx, osdKey(m.OSD), &rec)
	switch {
	case err != nil:
		return err
	case m.Kind == MessageKnowOSD && known || m.Kind == MessageMoveOSD && !known:
		return nil
	case !known && m.Lost:
		rec.state = OSDLost
	case !known:
		rec.state = OSDDraining
	}
	rec.node = m.Node
	return store(tx, osdKey(m.OSD), &rec)
}

func unlinkOSD(tx userfn.Tx, m Message) error {
	var rec osdRecord
	ok, err := load(tx, osdKey(m.OSD), &rec)
	if !ok || err != nil {
		return err
	}
	switch {
	case m.Lost:
		rec.state = OSDLost
	case rec.state != OSDLost: // what is lost stays lost
		rec.state = OSDDraining
	}
	return store(tx, osdKey(m.OSD), &rec)
}
