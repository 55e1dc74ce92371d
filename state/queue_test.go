package state

import (
	"context"
	"errors"
	"testing"
)

func TestQueue(t *testing.T) {
	var q queues
	leave, err := q.enter(context.Background(), "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := q.enter(context.Background(), "b")
	if err != nil {
		t.Fatalf("another queue is taken too: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := q.enter(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Fatalf("a second turn began, or ended with %v", err)
	}
	entered := make(chan error)
	go func() {
		second, err := q.enter(context.Background(), "a")
		if err == nil {
			second()
		}
		entered <- err
	}()
	leave()
	other()
	if err := <-entered; err != nil {
		t.Fatal(err)
	}
	if leave, err = q.enter(context.Background(), "a"); err != nil {
		t.Fatal(err)
	}
	leave()
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.all) != 0 {
		t.Errorf("%d queues are kept though nobody is in them", len(q.all))
	}
}
