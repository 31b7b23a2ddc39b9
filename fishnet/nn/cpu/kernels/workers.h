// Parts of a batch on several threads. Which thread computes a part changes no bit, nor does how many there are: where
// images are summed, a part has a sum of its own, and the number of parts depends on shapes alone.
#pragma once
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>

namespace fishnet {

// Threads that may help the one that calls. `start` runs a task on one of them, at some time.
struct Workers {
  int64_t threads = 1;  // with the caller
  std::function<void(std::function<void()>)> start;
  int64_t least = 1 << 21;  // products that are worth waking somebody for: some 50 microseconds
};

// Threads of the process that are inside a kernel. Lanes on other devices keep the processor's cores busy themselves.
inline std::atomic<int64_t> busy_threads{0};

struct Busy {
  Busy() { busy_threads++; }
  ~Busy() { busy_threads--; }
  Busy(const Busy&) = delete;
};

// Parts that several threads take one after the other.
class Parts {
 public:
  Parts(int64_t count, const std::function<void(int64_t)>& work) : count_(count), work_(work) {}

  // A helper that comes late finds nothing to do, and does not touch `work`, which may be gone.
  void take() {
    for (int64_t part; (part = next_++) < count_;) {
      std::exception_ptr problem;
      try {
        work_(part);
      } catch (...) {
        problem = std::current_exception();
      }
      const std::lock_guard<std::mutex> lock(mutex_);
      if (problem) problem_ = problem;
      if (++done_ == count_) all_done_.notify_all();
    }
  }

  // Throws what a part threw.
  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    all_done_.wait(lock, [&] { return done_ == count_; });
    if (problem_) std::rethrow_exception(problem_);
  }

 private:
  const int64_t count_;
  const std::function<void(int64_t)>& work_;
  std::atomic<int64_t> next_{0};
  std::mutex mutex_;
  std::condition_variable all_done_;
  int64_t done_ = 0;
  std::exception_ptr problem_;
};

// Calls work(part) for all parts, which take so many products together.
inline void each_part(const Workers& workers, int64_t parts, int64_t products,
                      const std::function<void(int64_t)>& work) {
  const Busy busy;
  const int64_t helpers = products < workers.least ? 0 : std::min(parts, workers.threads - busy_threads + 1) - 1;
  if (helpers < 1) {
    for (int64_t part = 0; part < parts; part++) work(part);
    return;
  }
  const auto shared = std::make_shared<Parts>(parts, work);
  for (int64_t i = 0; i < helpers; i++)
    workers.start([shared] {
      const Busy helping;
      shared->take();
    });
  shared->take();
  shared->wait();
}

}  // namespace fishnet
