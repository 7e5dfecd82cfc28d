// dict, list and set as referents, and the iterator over a dict or a set.
//
// Thread-safe: each call holds the referent's lock while it looks at or changes what is inside, and no other lock meanwhile.
#pragma once

#include "manager/object_table.hpp"
#include "manager/referent.hpp"

#include <mutex>

namespace multihull::detail {

class ListReferent : public ReferentOf<ListReferent> {
public:
    explicit ListReferent(Call& call);
    static const Methods<ListReferent>& methods();
    std::string repr() override;
    Object value() override;
    void visit(const std::function<void(const Object&)>& visitor) override;

private:
    std::size_t place(const Object& index, const char* sentence) const;
    std::vector<Object> repeated(const Object& times) const;

    Reply plus(Call& call);
    Reply contains(Call& call);
    Reply erase(Call& call);
    Reply at(Call& call);
    Reply times(Call& call);
    Reply multiply(Call& call);
    Reply size(Call& call);
    Reply reversed(Call& call);
    Reply put(Call& call);
    Reply append(Call& call);
    Reply clear(Call& call);
    Reply copy(Call& call);
    Reply count(Call& call);
    Reply extend(Call& call);
    Reply index(Call& call);
    Reply insert(Call& call);
    Reply pop(Call& call);
    Reply remove(Call& call);
    Reply reverse(Call& call);
    Reply sort(Call& call);
    Reply add(Call& call);
    Reply compare_exchange(Call& call);
    Reply apply(Call& call);

    std::mutex mutex_;
    std::vector<Object> items_;
};

/// A dict or a set as an iterator sees it.
class Keyed {
public:
    virtual ~Keyed() = default;
    /// How many keys there are, and a copy of the one at `position`, if any.
    virtual std::pair<std::size_t, std::optional<Object>> key_at(std::size_t position) = 0;
    virtual const char* kind() const noexcept = 0;
};

class DictReferent : public ReferentOf<DictReferent>, public Keyed {
public:
    explicit DictReferent(Call& call);
    static const Methods<DictReferent>& methods();
    std::string repr() override;
    Object value() override;
    void visit(const std::function<void(const Object&)>& visitor) override;
    std::pair<std::size_t, std::optional<Object>> key_at(std::size_t position) override;
    const char* kind() const noexcept override { return "dictionary"; }

private:
    void merge(Object other);

    Reply contains(Call& call);
    Reply erase(Call& call);
    Reply at(Call& call);
    Reply iterate(Call& call);
    Reply size(Call& call);
    Reply unite(Call& call);
    Reply unite_behind(Call& call);
    Reply unite_here(Call& call);
    Reply reversed(Call& call);
    Reply put(Call& call);
    Reply clear(Call& call);
    Reply copy(Call& call);
    Reply from_keys(Call& call);
    Reply get(Call& call);
    Reply items(Call& call);
    Reply keys(Call& call);
    Reply pop(Call& call);
    Reply pop_item(Call& call);
    Reply set_default(Call& call);
    Reply update(Call& call);
    Reply values(Call& call);
    Reply add(Call& call);
    Reply compare_exchange(Call& call);
    Reply apply(Call& call);

    std::mutex mutex_;
    GappedKeys dict_;
};

class SetReferent : public ReferentOf<SetReferent>, public Keyed {
public:
    explicit SetReferent(Call& call);
    static const Methods<SetReferent>& methods();
    std::string repr() override;
    Object value() override;
    void visit(const std::function<void(const Object&)>& visitor) override;
    std::pair<std::size_t, std::optional<Object>> key_at(std::size_t position) override;
    const char* kind() const noexcept override { return "Set"; }

private:
    enum class Operation { unite, intersect, subtract, differ };

    static Object combined(Operation operation, const Object& left, const Object& right);
    // The set that an operator's other side must be; null where it is none.
    static std::optional<Object> set_operand(Call& call);
    static Object set_from(Object& iterable, CallContext& context);
    template <Operation operation>
    Reply operate(Call& call);
    template <Operation operation>
    Reply operate_behind(Call& call);
    template <Operation operation>
    Reply operate_here(Call& call);
    template <Operation operation>
    Reply combine(Call& call);
    template <Operation operation>
    Reply combine_here(Call& call);
    template <class Compare>
    Reply compare(Call& call, Compare compare);

    Reply contains(Call& call);
    Reply iterate(Call& call);
    Reply size(Call& call);
    Reply less(Call& call);
    Reply less_equal(Call& call);
    Reply greater(Call& call);
    Reply greater_equal(Call& call);
    Reply add(Call& call);
    Reply clear(Call& call);
    Reply copy(Call& call);
    Reply discard(Call& call);
    Reply is_disjoint(Call& call);
    Reply is_subset(Call& call);
    Reply is_superset(Call& call);
    Reply pop(Call& call);
    Reply remove(Call& call);

    std::mutex mutex_;
    GappedKeys set_{Object::set()};
};

/// What `iter()` of a dict or a set gives: fails when keys come or go meanwhile, as Python's.
class KeyIterator : public ReferentOf<KeyIterator> {
public:
    explicit KeyIterator(std::shared_ptr<Keyed> keyed);
    static const Methods<KeyIterator>& methods();
    std::string repr() override;
    Object value() override;

private:
    Reply next(Call& call);
    Reply has_not(Call& call);

    std::mutex mutex_;
    std::shared_ptr<Keyed> keyed_;    // none when all was given
    std::size_t position_ = 0;
    std::size_t size_ = 0;
};

}    // namespace multihull::detail
