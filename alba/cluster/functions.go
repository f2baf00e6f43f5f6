package cluster

import (
	"errors"

	"openvstorage/alba/nsm/userfn"
	"openvstorage/arakoon/state"
)

// Functions turns the functions of a manager into user functions of Arakoon.
func Functions(list []userfn.Function) []state.Function {
	out := make([]state.Function, len(list))
	for i, f := range list {
		run := f.Run
		out[i] = state.Function{Name: f.Name, Version: f.Version, Run: func(t state.Tx, arg []byte) ([]byte, error) {
			result, err := run(tx{t}, arg)
			if err != nil {
				return nil, toState(err)
			}
			return result, nil
		}, Check: f.Check, Level: f.Level}
	}
	return out
}

// tx is Arakoon's transaction as the managers see it.
type tx struct{ state.Tx }

func (t tx) Delete(key []byte) { t.Tx.Delete(key) }

func (t tx) Time() int64 { return t.Tx.Time().UnixNano() }

// To Arakoon a limit of 0 means no limit, and to the managers it means no keys.

func (t tx) Range(first, last []byte, limit int, fn func(key, value []byte) bool) {
	if limit > 0 {
		t.Tx.Range(first, last, limit, fn)
	}
}

func (t tx) Reverse(first, last []byte, limit int, fn func(key, value []byte) bool) {
	if limit > 0 {
		t.Tx.Reverse(first, last, limit, fn)
	}
}

// toState gives a manager's error a code that replicas store and send. An error of a
// record that the manager cannot read is no result: it stops the member.
func toState(err error) error {
	var stop *userfn.StopError
	if errors.As(err, &stop) {
		return state.Stop(err)
	}
	var e *userfn.Error
	if !errors.As(err, &e) {
		return err // Arakoon gives it CodeFunction
	}
	return &state.Error{Code: state.CodeUser + uint32(e.Code), Message: err.Error()}
}

// fromState is the inverse of toState. An argument that exceeds Arakoon's bounds is
// invalid, as no state could take it.
func fromState(err error) error {
	var e *state.Error
	switch {
	case !errors.As(err, &e):
		return err
	case e.Code >= state.CodeUser:
		return &userfn.Error{Code: userfn.Code(e.Code - state.CodeUser), Message: e.Message}
	case e.Code == state.CodeTooLarge:
		return &userfn.Error{Code: userfn.CodeInvalid, Message: e.Message}
	}
	return err
}
