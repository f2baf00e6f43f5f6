package arakoon

// Index is what AtLeast was given; 0 for the other two.
func (c Consistency) Index() uint64 { return c.index }
