package main

import (
	"bytes"
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
)

// listsJSON returns a value as JSON, with every list an array. Programs that read JSON iterate
// over a list without checking that it is there. So an empty list is [], never null and never
// left out, unlike in package json. left says that an empty list with omitempty is left out all
// the same: it was not asked for.
func listsJSON(v any, left bool) ([]byte, error) {
	var out bytes.Buffer
	err := appendLists(&out, reflect.ValueOf(v), left)
	return out.Bytes(), err
}

var (
	marshaler     = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

func marshals(t reflect.Type) bool { return t.Implements(marshaler) || t.Implements(textMarshaler) }

func appendLists(out *bytes.Buffer, v reflect.Value, left bool) error {
	if !v.IsValid() {
		out.WriteString("null")
		return nil
	}
	switch kind := v.Kind(); {
	case marshals(v.Type()):
	case v.CanAddr() && marshals(reflect.PointerTo(v.Type())):
		v = v.Addr()
	case (kind == reflect.Pointer || kind == reflect.Interface) && !v.IsNil():
		return appendLists(out, v.Elem(), left)
	case kind == reflect.Slice && v.Type().Elem().Kind() != reflect.Uint8, kind == reflect.Array:
		out.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := appendLists(out, v.Index(i), left); err != nil {
				return err
			}
		}
		out.WriteByte(']')
		return nil
	case kind == reflect.Struct:
		out.WriteByte('{')
		err := appendFields(out, v, left)
		out.WriteByte('}')
		return err
	}
	// Maps come here too, as none that is printed has lists in it.
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v.Interface())
	out.Write(bytes.TrimSpace(text.Bytes()))
	return err
}

// appendFields writes the fields of a struct, those of embedded ones among them.
func appendFields(out *bytes.Buffer, v reflect.Value, left bool) error {
	for i := range v.NumField() {
		field, tag := v.Type().Field(i), v.Type().Field(i).Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		f := v.Field(i)
		switch {
		case field.Anonymous && name == "" && f.Kind() == reflect.Struct:
			if err := appendFields(out, f, left); err != nil {
				return err
			}
			continue
		case !field.IsExported() || tag == "-":
			continue
		}
		list := f.Kind() == reflect.Slice && !left
		opts := strings.Split(options, ",")
		if slices.Contains(opts, "omitempty") && isEmpty(f) && !list || slices.Contains(opts, "omitzero") && f.IsZero() && !list {
			continue
		}
		if name == "" {
			name = field.Name
		}
		if out.Bytes()[out.Len()-1] != '{' {
			out.WriteByte(',')
		}
		key, err := json.Marshal(name)
		if err != nil {
			return err
		}
		out.Write(append(key, ':'))
		if err := appendLists(out, f, left); err != nil {
			return err
		}
	}
	return nil
}

// isEmpty is what omitempty means by empty.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}
