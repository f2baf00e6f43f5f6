package nsm

import (
	"errors"

	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// MaxPuts is the number of objects that one call puts.
const MaxPuts = 64

// maxRefusal is the length in bytes of what a call says of one put.
const maxRefusal = 4 << 10

// putManyArg: U64 namespace, List of puts.
type putManyArg struct {
	ns   uint64
	puts []putBody
}

func (a *putManyArg) Fields(c *record.Codec) {
	c.U64(&a.ns)
	record.Records(c, &a.puts, MaxPuts)
}

// Outcome is what became of one put of several: a result, or the reason why
// it was refused.
type Outcome struct {
	PutResult
	Err error // an *Error
}

// Fields implements record.Record: U32 code; the result if it is 0, else
// String reason.
func (o *Outcome) Fields(c *record.Codec) {
	var code uint32
	var reason string
	if o.Err != nil {
		e := o.Err.(*userfn.Error)
		code, reason = uint32(e.Code), e.Message
	}
	c.U32(&code)
	if code == 0 {
		o.PutResult.Fields(c)
		return
	}
	c.String(&reason, maxRefusal)
	if c.Decoding() {
		o.Err = &userfn.Error{Code: userfn.Code(code), Message: reason}
	}
}

// outcomes: List of outcomes, one for each put.
type outcomes struct{ list []Outcome }

func (o *outcomes) Fields(c *record.Codec) { record.Records(c, &o.list, MaxPuts) }

// putMany puts objects one after the other, each for itself: a put that is refused leaves
// nothing, and does not keep the others from being made. The namespace and the counters are
// read and written once for all of them. A stored record that contradicts the others fails
// the whole call.
func putMany(tx userfn.Tx, a *putManyArg) (*outcomes, error) {
	s, err := openSpace(tx, a.ns, false)
	if err != nil {
		return nil, err
	}
	result := outcomes{list: make([]Outcome, len(a.puts))}
	discarded := 0
	for i := range a.puts {
		p := &a.puts[i]
		v, err := s.judge(p)
		if stop := (*userfn.StopError)(nil); errors.As(err, &stop) {
			return nil, err
		}
		if err != nil {
			result.list[i].Err = refusal(err)
			continue
		}
		if v.current != nil {
			discarded += v.current.count() + p.object.count()
		}
		if discarded > maxRemoved {
			return nil, userfn.Errorf(userfn.CodeInvalid, "namespace %d: the first %d of %d puts replace over %d fragments; put fewer in one call",
				a.ns, i+1, len(a.puts), maxRemoved)
		}
		r, err := s.carryOut(p, v)
		if err != nil {
			return nil, err
		}
		result.list[i].PutResult = *r
	}
	return &result, s.save()
}

// refusal returns the error that a result carries, or nil for a *userfn.StopError, which no
// result carries.
func refusal(err error) *userfn.Error {
	var e *userfn.Error
	if !errors.As(err, &e) {
		e = userfn.Errorf(userfn.CodeInvalid, "%v", err)
	}
	if len(e.Message) > maxRefusal {
		e = &userfn.Error{Code: e.Code, Message: e.Message[:maxRefusal]}
	}
	return e
}
