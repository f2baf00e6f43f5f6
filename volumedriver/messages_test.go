package volumedriver

import (
	"errors"
	"regexp"
	"testing"
)

// Errors of a vDisk have one form: its name in quotes, what is wrong, why.
func TestFormOfErrors(t *testing.T) {
	v := &Volume{}
	v.setName(`odd "name"`)
	form := regexp.MustCompile(`^vDisk "odd \\"name\\"": [a-z]`)
	for _, err := range []error{
		v.inUse(1), v.inUse(2),
		&haltError{name: v.Name(), cause: errors.New("why")},
		&haltError{name: v.Name(), gone: true},
		&haltError{name: v.Name(), shut: "opening", cause: errors.New("why")},
	} {
		if !form.MatchString(err.Error()) {
			t.Error(err)
		}
	}
	for users, want := range map[int]string{1: "by 1 connection;", 2: "by 2 connections;"} {
		if err := v.inUse(users); !regexp.MustCompile(want).MatchString(err.Error()) {
			t.Errorf("%d: %v", users, err)
		}
	}
}
